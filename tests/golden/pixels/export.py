"""Writes the golden data of this folder: sample images of every kind, and what Pillow and torchvision make of them.

    python export.py

`inputs/` holds the samples; `outputs.json` a CRC-32 of the RGB bytes Pillow gives for each, and the bytes themselves where a decoder may differ from Pillow;
`resize.json` CRC-32s of Pillow's resampling of a generated picture, bilinear then bicubic, each with rows first and in the order of the Pillow named in `versions.json`; `preprocess.json` those of torchvision's and transformers' pixels.
"""

import io
import json
import platform
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
import transformers
from PIL import Image, ImageOps
from PIL import features as pillow_features
from torchvision import transforms

HERE = Path(__file__).parent
INPUTS = HERE / "inputs"


def generated(width, height):
    """The picture that the tests generate as well: high bytes of a linear congruential generator."""
    count = width * height * 3
    states = np.empty(count, np.uint64)
    state = 1
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        states[i] = state
    return Image.fromarray((states >> 24).astype(np.uint8).reshape(height, width, 3))


def scene(width, height):
    """Smooth shades, hard edges and some noise, so that every stage of a codec has work."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 110 * np.sin(x / 7 + y / 15), 128 + 110 * np.cos(x / 11 - y / 6), 3 * x + 2 * y], -1)
    rgb[(x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (height * 0.25) ** 2] = (250, 20, 30)
    rgb[(x > width * 0.1) & (x < width * 0.3) & (y > height * 0.5)] = (10, 60, 240)
    rgb += np.random.default_rng(7).normal(0, 5, rgb.shape)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


W, H = 37, 29
RGB = scene(W, H)
GREY = RGB.convert("L")
ALPHA = Image.fromarray(np.linspace(0, 255, W * H).astype(np.uint8).reshape(H, W))
DEEP = (np.asarray(RGB).astype(np.uint16) * 257) ^ 0x0055
DEEP_GREY = (np.arange(W * H, dtype=np.uint32) * 61 % 65536).astype(np.uint16).reshape(H, W)
DEEP_GREY[:10] %= 300


def save(name, image, **options):
    image.save(INPUTS / name, **options)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return bytearray(out.getvalue())


def png(name, samples, colour, depth, interlace=False, extra=()):
    """A PNG of any bit depth, from big-endian rows of packed bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, int(interlace))
    rows = b"".join(b"\0" + row for row in samples)
    body = chunk(b"IHDR", head) + b"".join(chunk(k, b) for k, b in extra)
    body += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (INPUTS / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def packed(values, depth):
    """Rows of samples below 2 ** depth, packed from the high bit down."""
    bits = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth:]
    return [np.packbits(row.reshape(-1)).tobytes() for row in bits]


def pngs():
    save("rgb.png", RGB)
    save("rgba.png", Image.merge("RGBA", (*RGB.split(), ALPHA)))
    save("grey.png", GREY)
    save("grey_alpha.png", Image.merge("LA", (GREY, ALPHA)))
    save("palette.png", RGB.quantize(50))
    save("palette_transparent.png", RGB.quantize(16), transparency=bytes(range(0, 240, 15)))
    save("one_bit.png", GREY.convert("1"))
    save("grey_transparent.png", GREY, transparency=int(np.asarray(GREY)[0, 0]))
    save("rgb_transparent.png", RGB, transparency=RGB.getpixel((3, 3)))
    for depth in (2, 4):
        png(f"grey_{depth}bit.png", packed(np.asarray(GREY) >> (8 - depth), depth), 0, depth)
    big = [row.astype(">u2").tobytes() for row in DEEP_GREY]
    png("grey_16bit.png", big, 0, 16)
    png("grey_16bit_transparent.png", big, 0, 16, extra=[(b"tRNS", b"\0\7")])
    png("rgb_16bit.png", [row.astype(">u2").tobytes() for row in DEEP], 2, 16)
    alpha = np.asarray(ALPHA).astype(np.uint16)[:, :, None] * 257
    png("rgba_16bit.png", [r.astype(">u2").tobytes() for r in np.concatenate([DEEP, alpha], 2)], 6, 16)
    deep = np.concatenate([DEEP[:, :, :1], alpha], 2)
    png("grey_alpha_16bit.png", [row.astype(">u2").tobytes() for row in deep], 4, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("orientation.png", RGB, exif=exif)


def jpegs():
    for name, subsampling in (("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")):
        for progressive in (False, True):
            kind = "progressive" if progressive else "baseline"
            for w, h in ((W, H), (64, 48)):
                image = scene(w, h)
                save(f"{kind}_{name}_{w}x{h}.jpg", image, quality=85, subsampling=subsampling, progressive=progressive)
    save("baseline_420_1x17.jpg", scene(1, 17), subsampling="4:2:0")
    save("baseline_420_33x1.jpg", scene(33, 1), subsampling="4:2:0")
    save("baseline_420_restarts.jpg", scene(64, 48), subsampling="4:2:0", restart_marker_blocks=2)
    save("low_quality.jpg", scene(64, 48), quality=10)
    save("grey.jpg", GREY)
    save("rgb.jpg", RGB, keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = 8
    save("orientation.jpg", RGB, exif=exif)
    # Pillow writes no other samplings, but a stream of the same blocks in another order of the grid is a valid one.
    for name, source, factors, (w, h) in (
        ("440", "4:2:2", 0x12, (61, 45)), ("411", "4:2:0", 0x41, (95, 31)), ("410_tall", "4:2:0", 0x14, (31, 95)),
    ):
        data = saved(scene(64, 48), "JPEG", subsampling=source)
        frame = data.index(b"\xff\xc0")
        data[frame + 5:frame + 9] = struct.pack(">HH", h, w)
        data[frame + 11] = factors
        (INPUTS / f"baseline_{name}_{w}x{h}.jpg").write_bytes(data)
    cmyk = Image.merge("CMYK", (*RGB.split(), ALPHA))
    save("cmyk.jpg", cmyk)
    adobe = saved(cmyk, "JPEG", quality=90)
    mark = adobe.index(b"Adobe")
    without = adobe[:mark - 4] + adobe[mark + 12:]
    (INPUTS / "cmyk_no_adobe.jpg").write_bytes(without)
    adobe[mark + 11] = 2
    (INPUTS / "ycck.jpg").write_bytes(adobe)


def others():
    save("lossy.webp", RGB, quality=80)
    save("lossy_odd.webp", scene(51, 33), quality=40)
    save("lossless.webp", RGB, lossless=True)
    save("lossy_alpha.webp", Image.merge("RGBA", (*RGB.split(), ALPHA)), quality=80)
    save("lossless_alpha.webp", Image.merge("RGBA", (*RGB.split(), ALPHA)), lossless=True, exact=True)
    save("animated.webp", RGB, save_all=True, append_images=[RGB.rotate(180)], lossless=True)

    save("palette.gif", RGB.quantize(64))
    save("grey.gif", GREY)
    save("interlaced.gif", RGB.quantize(32), interlace=1)
    save("animated.gif", RGB.quantize(32), save_all=True, append_images=[RGB.rotate(180).quantize(32)])
    save("transparent.gif", RGB.quantize(32), transparency=3)
    small = saved(RGB.quantize(8), "GIF")
    # A screen larger than the frame, and a frame that leaves its screen.
    frame = small.index(b",", 13 + 3 * 8)
    for name, screen, corner in (("inset", (W + 9, H + 5), (4, 3)), ("overhang", (W, H), (6, 2))):
        data = small.copy()
        data[6:10] = struct.pack("<HH", *screen)
        data[frame + 1:frame + 5] = struct.pack("<HH", *corner)
        (INPUTS / f"{name}.gif").write_bytes(data)

    save("rgb.bmp", RGB)
    save("grey.bmp", GREY)
    save("palette.bmp", RGB.quantize(40))
    save("one_bit.bmp", GREY.convert("1"))
    save("rgba.bmp", Image.merge("RGBA", (*RGB.split(), ALPHA)))
    bitmap(16, (0x7C00, 0x3E0, 0x1F), "bmp_555")
    bitmap(16, (0xF800, 0x7E0, 0x1F), "bmp_565")
    bitmap(32, None, "bmp_32")


def bitmap(bits, masks, name):
    """A top-down bitmap of 16 or 32 bits a pixel."""
    stride = (W * bits + 31) // 32 * 4
    values = np.arange(W * H, dtype=np.uint32).reshape(H, W) * 1771
    kind = np.uint16 if bits == 16 else np.uint32
    rows = b"".join(row.astype(kind).tobytes().ljust(stride, b"\0") for row in values)
    extra = struct.pack("<III", *masks) if masks else b""
    head = struct.pack("<IiiHHIIiiII", 40, W, -H, 1, bits, 3 if masks else 0, len(rows), 0, 0, 0, 0) + extra
    start = 14 + len(head)
    (INPUTS / f"{name}.bmp").write_bytes(struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + head + rows)


def tiffs():
    rgba = Image.merge("RGBA", (*RGB.split(), ALPHA))
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        save(f"rgb_{compression}.tif", RGB, compression=compression)
    save("rgb_predictor.tif", RGB, compression="tiff_lzw", tiffinfo={317: 2})
    save("rgba.tif", rgba)
    data = saved(rgba, "TIFF")
    data[data.index(struct.pack("<HHI", 338, 3, 1)) + 8] = 1
    (INPUTS / "rgba_associated.tif").write_bytes(data)
    save("grey.tif", GREY)
    save("grey_alpha.tif", Image.merge("LA", (GREY, ALPHA)))
    save("palette.tif", RGB.quantize(50))
    save("one_bit.tif", GREY.convert("1"))
    save("one_bit_group4.tif", GREY.convert("1"), compression="group4")
    save("cmyk.tif", Image.merge("CMYK", (*RGB.split(), ALPHA)))
    save("grey_16bit.tif", Image.fromarray(DEEP_GREY))
    save("grey_32bit.tif", Image.fromarray(DEEP_GREY.astype(np.int32) - 100))
    save("grey_float.tif", Image.fromarray(np.linspace(-9, 300, W * H, dtype=np.float32).reshape(H, W)))
    save("orientation.tif", RGB, tiffinfo={274: 6})
    save("ycbcr.tif", RGB.convert("YCbCr"))
    save("jpeg.tif", RGB, compression="jpeg")
    save("strips.tif", RGB, strip_size=W * 3 * 5, compression="tiff_lzw")
    data = saved(GREY, "TIFF")
    tag = data.index(struct.pack("<HHI", 262, 3, 1))
    data[tag + 8] = 0
    (INPUTS / "white_is_zero.tif").write_bytes(data)
    for order, kind in (("<", b"II"), (">", b"MM")):
        # Pillow misreads planes of 16 bits.
        for planar, samples in (("", DEEP), ("_planar", np.asarray(RGB).transpose(2, 0, 1))):
            page(f"rgb_{8 * samples.itemsize}bit_{kind.decode().lower()}{planar}.tif", order, kind, samples, bool(planar))


def page(name, order, kind, samples, planar):
    """A plain RGB TIFF in either byte order, its samples side by side or in planes."""
    bits = 8 * samples.itemsize
    data = samples.astype(f"{order}u{samples.itemsize}").tobytes()
    strips = 3 if planar else 1
    size = len(data) // strips
    after = 8 + len(data)
    lists = struct.pack(order + "HHH", bits, bits, bits)
    lists += struct.pack(f"{order}{strips}I", *(8 + i * size for i in range(strips)))
    lists += struct.pack(f"{order}{strips}I", *([size] * strips))
    offsets = (after + 6, after + 6 + 4 * strips) if planar else (8, size)

    def short(value):
        return struct.unpack(order + "I", struct.pack(order + "HH", value, 0))[0]

    tags = [
        (256, 4, 1, W), (257, 4, 1, H), (258, 3, 3, after), (259, 3, 1, short(1)), (262, 3, 1, short(2)),
        (273, 4, strips, offsets[0]), (277, 3, 1, short(3)), (278, 4, 1, H), (279, 4, strips, offsets[1]),
        (284, 3, 1, short(2 if planar else 1)),
    ]
    directory = struct.pack(order + "H", len(tags))
    directory += b"".join(struct.pack(order + "HHII", *tag) for tag in tags) + b"\0" * 4
    head = kind + struct.pack(order + "HI", 42, after + len(lists))
    (INPUTS / name).write_bytes(head + data + lists + directory)


def outputs():
    """What Pillow reads; the bytes too for lossy kinds and wherever a test allows a difference."""
    found = {}
    for path in sorted(INPUTS.iterdir()):
        with Image.open(path) as image:
            mode = image.mode
            rgb = image.convert("RGB")
            upright = ImageOps.exif_transpose(image).convert("RGB")
        entry = {"mode": mode, "size": rgb.size, "crc32": zlib.crc32(rgb.tobytes())}
        if path.stem == "orientation":
            entry |= {"upright_size": upright.size, "upright_crc32": zlib.crc32(upright.tobytes())}
        if path.suffix in (".jpg", ".webp") or path.name in ("jpeg.tif", "ycbcr.tif"):
            entry["rgb"] = rgb.tobytes().hex()
        found[path.name] = entry
    return found


def resizes():
    rng = np.random.default_rng(11)
    cases = [((101, 67), to) for to in ((1, 1), (101, 31), (37, 67), (202, 134), (100, 66), (384, 384), (5, 300))]
    cases += [((1, 1), (9, 4)), ((2, 3), (7, 5)), ((257, 3), (13, 31)), ((640, 480), (224, 224))]
    for _ in range(200):
        sizes = [int(np.exp(v)) for v in rng.uniform(0, np.log(230), 4)]
        cases.append(((sizes[0], sizes[1]), (sizes[2], sizes[3])))
    found = []
    for before, after in cases:
        image = generated(*before)
        crcs = []
        for filter in (Image.BILINEAR, Image.BICUBIC):
            # In two steps the passes come in the order of Pillow up to 12; at once, in that of this Pillow.
            rows_first = image.resize((after[0], before[1]), filter).resize(after, filter)
            crcs += [zlib.crc32(i.tobytes()) for i in (rows_first, image.resize(after, filter))]
        found.append([*before, *after, *crcs])
    return found


def preprocessed():
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    found = []
    # What the image is resized to, and the side of the centre cut out of it.
    sides = ((32, 32), (45, 45), (96, 96), (37, 32), (51, 45), (256, 224))
    for before in ((101, 67), (67, 101), (31, 31), (300, 41), (59, 177)):
        image = generated(*before)
        for resized, side in sides:
            for name in ("bilinear", "bicubic"):
                mode = transforms.InterpolationMode(name)
                crop = transforms.CenterCrop(side)
                steps = [transforms.Resize(resized, mode), crop, transforms.ToTensor(), transforms.Normalize(mean, std)]
                pixels = transforms.Compose(steps)(image)
                case = [*before, resized, side, name]
                found.append(["shorter-side-crop", *case, zlib.crc32(pixels.numpy().tobytes())])
                squashed = crop(Image.fromarray(squash(image, resized, Image.Resampling[name.upper()])))
                found.append(["squash", *case, zlib.crc32(squashed.tobytes())])
    return found


def augmented():
    """MAGMA's random pre-processing with every choice made: sizes, side S, first resize, left, top, flip, checksum."""
    found = []
    for before in ((300, 280), (101, 67), (290, 201), (40, 271)):
        image = generated(*before)
        for side in (64, 256):
            border = [(side - size) // 2 for size in before]
            border += [side - size - first for size, first in zip(before, border)]
            square = ImageOps.expand(image, tuple(border))
            assert square.size == (side, side)
            for size in (side, side + 1):
                resized = transforms.functional.resize(square, size)
                if size < 256:
                    resized = transforms.functional.resize(resized, 256)
                room = resized.size[0] - side
                for left, top in sorted({(0, 0), (room, 0), (0, room), (room, room), (room // 3, room // 2)}):
                    cut = transforms.functional.crop(resized, top, left, side, side)
                    for flip, kept in ((False, cut), (True, transforms.functional.hflip(cut))):
                        found.append([*before, side, size, left, top, flip, zlib.crc32(kept.tobytes())])
    return found


def squash(image, side, filter):
    """The resized bytes of transformers' Pillow-backed processors, side x side x 3."""
    from transformers.image_transforms import resize

    array = resize(np.asarray(image), (side, side), filter, input_data_format="channels_last")
    return np.ascontiguousarray(array, np.uint8)


def main():
    INPUTS.mkdir(exist_ok=True)
    for old in INPUTS.iterdir():
        old.unlink()
    for write in (pngs, jpegs, others, tiffs):
        write()
    for name, value in (("outputs", outputs()), ("resize", resizes()), ("preprocess", preprocessed()), ("augment", augmented())):
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()] if isinstance(value, dict) else map(json.dumps, value)
        ends = "{}" if isinstance(value, dict) else "[]"
        (HERE / f"{name}.json").write_text(ends[0] + "\n" + ",\n".join(lines) + "\n" + ends[1] + "\n")
    codecs = {name: pillow_features.version(name) for name in ("libjpeg_turbo", "webp", "libtiff", "zlib")}
    versions = {"python": platform.python_version(), "pillow": PIL.__version__, "numpy": np.__version__, **codecs}
    versions |= {"torch": torch.__version__, "torchvision": torchvision.__version__, "transformers": transformers.__version__}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
