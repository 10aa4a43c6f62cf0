"""How long a shuffled epoch takes to begin over a list of a million samples, for each format of data.

Run: `python tests/reference/epoch_start.py --limber target/release/limber [--count 1000000] [--folder /tmp/x]`
Every list names one file of features again and again, so that reading the first sample costs nothing. The program trains
one step of one sample with a tiny decoder; the time of the same run over a list of ten samples is taken off. Memory is
the peak of the process, also less that of ten samples. Shards are hard links to one shard of 10,000 samples of 30 kB
each, so they lie in the page cache: what is measured is the work, not the disk.
The folder is deleted afterwards. The verdict is against the issue's 2 s.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]
WIDTH, LIMIT_S = 7500, 2.0
CAPTION = "a small red circle above two large blue squares and a ring left of them"
FOLDERS, SHARD = 100, 10_000


def jsonl(folder, count):
    with open(folder / "list.jsonl", "w") as file:
        for number in range(count):
            file.write(json.dumps({"image": "one.npy", "caption": f"{CAPTION} {number}"}) + "\n")
    return folder / "list.jsonl"


def csv(folder, count):
    with open(folder / "list.csv", "w") as file:
        file.write("image,url,caption\n")
        for number in range(count):
            file.write(f'one.npy,https://example.org/{number:09d}.jpg,"{CAPTION}, {number}"\n')
    return folder / "list.csv"


def coco(folder, count):
    with open(folder / "captions_train.json", "w") as file:
        file.write('{"info": {"year": 2014}, "licenses": [], "images": [')
        for number in range(count):
            entry = {"license": 3, "file_name": "one.npy", "coco_url": f"http://example.org/{number:012d}.jpg", "height": 480, "width": 640, "id": number}
            file.write((", " if number else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for number in range(count):
            entry = {"image_id": (number * 7919) % count, "id": number, "caption": f"{CAPTION} {number}"}
            file.write((", " if number else "") + json.dumps(entry))
        file.write("]}")
    return folder / "captions_train.json"


def magma(folder, count):
    """Names alone are read to begin with, so all are links to a few files."""
    root = folder / "magma"
    seed = None
    for number in range(count):
        place = root / f"image_data/{number * FOLDERS // count:05d}"
        if number % max(count // FOLDERS, 1) == 0:
            place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:09d}.json"
        if number % 20_000 == 0:
            seed = path
            path.write_text(json.dumps({"image_path": str(folder / "one.npy"), "captions": [CAPTION], "metadata": {}}))
        else:
            os.link(seed, path)
    return root


def webdataset(folder, count):
    """As img2dataset orders a sample's members: image, json, txt."""
    root = folder / "shards"
    root.mkdir()
    image = (folder / "one.npy").read_bytes()
    about = {"caption": CAPTION, "url": "https://example.org/0.jpg", "status": "success", "width": 640, "height": 480, "sha256": "0" * 64, "exif": "{" + "x" * 500 + "}"}
    inside = min(SHARD, count)
    with tarfile.open(root / "000000.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(inside):
            for ending, data in (("npy", image), ("json", json.dumps(about | {"key": f"{number:09d}"}).encode()), ("txt", CAPTION.encode())):
                info = tarfile.TarInfo(f"{number:09d}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    last = count // inside - 1
    for number in range(1, last + 1):
        os.link(root / "000000.tar", root / f"{number:06d}.tar")
    return f"{root}/{{000000..{last:06d}}}.tar"


def run(limber, folder, format, path):
    """Seconds and peak megabytes of a training of one step."""
    golden = ROOT / "tests/golden"
    config = {
        "encoder": {"kind": "features", "tokens": 1, "width": WIDTH},
        "stitch": {"kind": "linear", "weights": "random:1"},
        "decoder": {"kind": "gptj", "weights": str(golden / "train/decoder"), "tokenizer": str(golden / "tokenizer/json")},
        "train": {"steps": 1, "batch": 1, "output": str(folder / "out")},
        "data": {"format": format, "path": str(path), "workers": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    best = None
    for _ in range(3):
        shutil.rmtree(folder / "out", ignore_errors=True)
        begin = time.perf_counter()
        child = subprocess.Popen([limber, "train", "--config", str(folder / "config.json")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        if status != 0:
            sys.exit(f"{format}: {child.stderr.read().decode()}")
        best = min(best or (seconds, 0), (seconds, usage.ru_maxrss / 1024))
    return best


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limber", default=str(ROOT / "target/release/limber"))
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--folder", help="where the lists go, a new folder in it; the system's temporary one by default")
    arguments.add_argument("--format", nargs="*", default=["jsonl", "csv", "coco", "magma", "webdataset"])
    arguments = arguments.parse_args()
    makers = {"jsonl": jsonl, "csv": csv, "coco": coco, "magma": magma, "webdataset": webdataset}
    bad = False
    print(f"{'format':<12}{'samples':>10}{'begins after':>14}{'memory':>10}")
    for name in arguments.format:
        times = []
        for count in (10, arguments.count):
            place = Path(tempfile.mkdtemp(prefix="epoch-start-", dir=arguments.folder))
            try:
                numpy.save(place / "one.npy", numpy.linspace(-1, 1, WIDTH, dtype=numpy.float32))
                path = makers[name](place, count)
                times.append(run(arguments.limber, place, name, path))
            finally:
                shutil.rmtree(place)
        seconds, memory = times[1][0] - times[0][0], times[1][1] - times[0][1]
        bad |= seconds >= LIMIT_S
        print(f"{name:<12}{arguments.count:>10}{seconds:>12.2f} s{memory:>7.0f} MB", flush=True)
    print("not in time" if bad else "all in time")
    sys.exit(bad)


if __name__ == "__main__":
    main()
