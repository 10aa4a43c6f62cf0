"""Tar shards as the packages img2dataset and webdataset and Python's tarfile write them, and what webdataset reads of them.

Run: `python tests/golden/webdataset/export.py`
`img2dataset/` is what the program of that name writes of images that a server on this machine offers; one address of
them gives no image and two have no caption. `writer/` is webdataset's ShardWriter, `forms/` tarfile's three formats with
long names, folders, links and files that belong to no sample. `cut/` is a shard cut in the middle of a member, at the end
of one, and one whose third header is damaged.
`expected.json` holds, for every shard that is whole, webdataset's samples in order: key, endings with their bytes' CRC.
"""

import csv
import functools
import http.server
import io
import json
import shutil
import sys
import tarfile
import threading
import zlib
from pathlib import Path

import numpy
import webdataset
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

WORDS = ["a red circle", "two stars", "a blue square above a ring", "", "drei grüne Kreise", "a small ring"]


def picture(number, kind):
    """A small picture of its number's own colours."""
    pixels = numpy.random.default_rng(number).integers(0, 256, (5 + number % 3, 6, 3), numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((12, 10)).save(out, kind)
    return out.getvalue()


def by_img2dataset(folder, scratch):
    """Runs img2dataset over a list of addresses on a server of our own."""
    from img2dataset import download

    scratch.mkdir()
    for number in range(6):
        (scratch / f"{number}.jpg").write_bytes(picture(number, "JPEG"))
    (scratch / "5.jpg").write_bytes(b"<html>gone</html>")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=scratch))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with open(scratch / "list.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["url", "caption"])
        rows.writerows([f"{address}/{n}.jpg", WORDS[n]] for n in range(6))
    download(
        url_list=str(scratch / "list.csv"), input_format="csv", url_col="url", caption_col="caption",
        output_folder=str(folder), output_format="webdataset", processes_count=1, thread_count=1,
        number_sample_per_shard=4, resize_mode="no", encode_quality=95, enable_wandb=False,
    )
    server.shutdown()
    for path in folder.iterdir():
        if path.suffix != ".tar":
            path.unlink()


def by_writer(folder):
    """webdataset's own writer: other endings, captions in three places, features in place of images."""
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "part-%06d.tar"), maxcount=4, verbose=0) as writer:
        features = io.BytesIO()
        numpy.save(features, numpy.arange(12, dtype=numpy.float32).reshape(3, 4))
        for sample in (
            {"png": picture(10, "PNG"), "txt": WORDS[0]},
            {"webp": picture(11, "WEBP"), "caption": WORDS[1].encode()},
            {"jpeg": picture(12, "JPEG"), "json": {"captions": WORDS[2:5]}},
            {"jpg": picture(13, "JPEG"), "txt": "  ", "json": {"caption": WORDS[4]}},
            {"npy": features.getvalue(), "txt": WORDS[5]},
            {"jpg": picture(15, "JPEG"), "cls": b"circle"},
            {"jpg": picture(16, "JPEG"), "cls": b"7"},
            {"txt": "no picture"},
            {"jpg": picture(17, "JPEG")},
            {"jpg": picture(18, "JPEG"), "txt": b"\xff\xfe"},
            {"jpg": picture(19, "JPEG"), "json": b"[1"},
        ):
            number = writer.total
            writer.write({"__key__": f"sub.{number % 2}/{number:05d}", **sample})


def member(archive, name, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def by_tarfile(folder):
    """tarfile's formats: a long name needs a header of its own in GNU's and pax's, a prefix in ustar's."""
    folder.mkdir()
    long = "a-folder-with-a-long-name/" * 4
    for name, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(folder / f"{name}.tar", "w", format=form, pax_headers={"comment": "of the whole"}) as archive:
            member(archive, "a", type=tarfile.DIRTYPE)
            member(archive, "README", b"belongs to no sample")
            member(archive, "__index__", b"neither does this")
            for number in range(3):
                stem = f"{long}{number:08d}" + ("x" * 70 if name != "ustar" else "")
                member(archive, f"{stem}.JPG", picture(20 + number, "JPEG"))
                member(archive, f"{stem}.txt", f"{WORDS[number]}\n".encode())
            member(archive, "linked.jpg", type=tarfile.SYMTYPE, linkname="a/0.jpg")
            member(archive, "a/ü.png", picture(24, "PNG"), mtime=1.5 if name == "pax" else 1)
            member(archive, "a/ü.txt", WORDS[5].encode())


def damaged(folder, whole):
    """A shard that ends too soon, or whose headers are spoilt."""
    folder.mkdir()
    data = whole.read_bytes()
    with tarfile.open(whole) as archive:
        members = archive.getmembers()
    third = members[4]
    (folder / "member.tar").write_bytes(data[: third.offset_data + third.size // 2])
    (folder / "boundary.tar").write_bytes(data[: third.offset])
    (folder / "header.tar").write_bytes(data[: third.offset + 100])
    spoilt = bytearray(data)
    spoilt[third.offset + 148] ^= 0x55
    (folder / "spoilt.tar").write_bytes(bytes(spoilt))
    (folder / "page.tar").write_bytes(b"<html>" * 200)
    return [m.name for m in members]


def main():
    folder = start(__file__, "webdataset", "img2dataset", "pillow", "numpy")
    for name in ("img2dataset", "writer", "forms", "cut", "scratch"):
        shutil.rmtree(folder / name, ignore_errors=True)
    by_img2dataset(folder / "img2dataset", folder / "scratch")
    shutil.rmtree(folder / "scratch")
    by_writer(folder / "writer")
    by_tarfile(folder / "forms")
    damaged(folder / "cut", folder / "writer/part-000000.tar")
    expected = {}
    for path in sorted(folder.glob("*/*.tar")):
        if path.parent.name == "cut":
            continue
        samples = []
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
            parts = {k: zlib.crc32(v) for k, v in sample.items() if not k.startswith("__")}
            samples.append({"key": sample["__key__"], "parts": parts})
        expected[f"{path.parent.name}/{path.name}"] = samples
        print(f"  {path.parent.name}/{path.name}: {len(samples)} samples, {path.stat().st_size} bytes")
    write_json(folder / "expected.json", expected)
    print(json.dumps(list(expected)))


if __name__ == "__main__":
    main()
