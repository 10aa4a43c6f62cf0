"""Writes the golden data of this folder: odd images, and what Pillow makes of them.

    python export.py

`files/` holds the images; `expected.json` the size of `Image.open(...).convert("RGB")` and the first 16 digits of the SHA-256 of its bytes for each, or null where Pillow refuses it.
"""

import hashlib
import io
import json
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
from PIL import Image

HERE = Path(__file__).parent
FILES = HERE / "files"
W, H = 13, 9


def scene(width, height, noise=5):
    """Smooth shades, hard edges and some noise, so that every stage of a codec has work."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 110 * np.sin(x / 7 + y / 15), 128 + 110 * np.cos(x / 11 - y / 6), 3 * x + 2 * y], -1)
    rgb[(x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (height * 0.25) ** 2] = (250, 20, 30)
    rgb += np.random.default_rng(7).normal(0, noise, rgb.shape)
    return np.clip(rgb, 0, 255).astype(np.uint8)


ARRAY = scene(W, H)
RGB = Image.fromarray(ARRAY)
# Past a tile of 16 pixels both ways, and of few colours.
WIDE = scene(23, 17) & 0xE0
PAST = dict(width=23, height=17)
GREY = RGB.convert("L")
L = np.asarray(GREY)
ALPHA = np.linspace(0, 255, W * H).astype(np.uint8).reshape(H, W)
RGBA = Image.fromarray(np.dstack([ARRAY, ALPHA]))
BITS = GREY.convert("1")
CMYK = Image.fromarray(np.dstack([ARRAY, ALPHA // 2]), "CMYK")
DEEP = (ARRAY.astype(np.uint16) * 257) ^ 0x0055
DEEP_GREY = (np.arange(W * H, dtype=np.uint32) * 61 % 65536).astype(np.uint16).reshape(H, W)
DEEP_GREY[:6] %= 300


def put(name, data):
    (FILES / name).write_bytes(bytes(data))


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return bytearray(out.getvalue())


def packed(values, depth, low_first=False):
    """Rows of samples below 2 ** depth, packed from the high bit down, each row from a byte on."""
    rows = values.reshape(len(values), -1).astype(np.uint16)
    bits = (rows[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    order = "little" if low_first else "big"
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1, bitorder=order)


# TIFF


def tiff(name, data, order="<", big=False, count=None, **tags):
    """A TIFF of any tags and any strips, their bytes given as they are to lie in the file."""
    numbers = dict(
        width=256, height=257, bits=258, compression=259, photometric=262, fill=266, offsets=273, orientation=274,
        samples=277, rows=278, counts=279, planar=284, t4=292, t6=293, predictor=317, map=320, tile_width=322,
        tile_height=323, tile_offsets=324, tile_counts=325, inkset=332, extra=338, format=339, tables=347,
        subsampling=530, positioning=531, reference=532,
    )
    wide = {"offsets", "counts", "tile_offsets", "tile_counts", "width", "height", "t4", "t6"}
    strips = data if isinstance(data, list) else [data]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), 0)
    out = bytearray(head)
    offsets = []
    for strip in strips:
        offsets.append(len(out))
        out += bytes(strip)
        out += b"\0" * (len(out) % 2)
    tiled = "tile_width" in tags
    tags = {"width": W, "height": H, "samples": 1, "bits": 8, "compression": 1, "photometric": 1} | tags
    if not tiled:
        tags = {"rows": H} | tags
    tags["tile_offsets" if tiled else "offsets"] = offsets
    tags["tile_counts" if tiled else "counts"] = [len(strip) for strip in strips]
    entries = []
    for key, value in tags.items():
        if value is None:
            continue
        if isinstance(value, bytes):
            kind, items, body = 7, len(value), value
        else:
            values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
            letter, kind = ("I", 4) if key in wide else ("H", 3)
            if big and key in ("tile_offsets", "offsets"):
                letter, kind = "Q", 16
            if key == "reference":
                body, kind, items = struct.pack(f"{order}12I", *(v for x in values for v in (x, 1))), 5, 6
            else:
                body, items = struct.pack(f"{order}{len(values)}{letter}", *values), len(values)
        entries.append((numbers[key], kind, items, body))
    room = 8 if big else 4
    for i, (tag, kind, items, body) in enumerate(entries):
        if len(body) > room:
            body_at = len(out)
            out += body + b"\0" * (len(body) % 2)
            entries[i] = (tag, kind, items, struct.pack(order + ("Q" if big else "I"), body_at))
    at = len(out)
    out += struct.pack(order + ("Q" if big else "H"), len(entries))
    for tag, kind, items, body in sorted(entries):
        out += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, items) + body.ljust(room, b"\0")
    out += b"\0" * room
    out[len(head) - room:len(head)] = struct.pack(order + ("Q" if big else "I"), at)
    put(name, out)
    return out


def rows_of(array, count, order="<"):
    """The bytes of strips of `count` rows."""
    array = array.astype(array.dtype.newbyteorder(order))
    return [array[i:i + count].tobytes() for i in range(0, len(array), count)]


def tiles_of(array, w, h):
    high, wide = -(-array.shape[0] // h) * h, -(-array.shape[1] // w) * w
    pad = [(0, high - array.shape[0]), (0, wide - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    array = np.pad(array, pad)
    return [array[y:y + h, x:x + w].tobytes() for y in range(0, high, h) for x in range(0, wide, w)]


def lzw(strips):
    return [imagecodecs.lzw_encode(s) for s in strips]


def packbits(strips):
    return [imagecodecs.packbits_encode(s) for s in strips]


def deflate(strips):
    return [zlib.compress(s, 9) for s in strips]


def zstd(strips):
    return [imagecodecs.zstd_encode(s) for s in strips]


def differences(array):
    out = array.copy()
    out[:, 1:] -= array[:, :-1]
    return out


def tiffs():
    rgb = dict(samples=3, bits=[8, 8, 8], photometric=2)
    flat = rows_of(ARRAY, H)
    for order, name in (("<", "ii"), (">", "mm")):
        tiff(f"big_{name}.tif", flat, order, big=True, **rgb)
        tiff(f"grey16_{name}.tif", rows_of(DEEP_GREY, 5, order), order, bits=16, rows=5)
        tiff(f"grey16_lzw_{name}.tif", lzw(rows_of(DEEP_GREY, 5, order)), order, bits=16, rows=5, compression=5)
        tiff(f"grey16_predictor_{name}.tif", deflate(rows_of(differences(DEEP_GREY), 5, order)), order, bits=16, rows=5, compression=8, predictor=2)
        tiff(f"int16_{name}.tif", rows_of(DEEP_GREY.view(np.int16), 5, order), order, bits=16, rows=5, format=2)
        tiff(f"int32_{name}.tif", rows_of(DEEP_GREY.astype(np.int32) - 99, 5, order), order, bits=32, rows=5, format=2)
        tiff(f"uint32_{name}.tif", rows_of(DEEP_GREY.astype(np.uint32) * 7, 5, order), order, bits=32, rows=5, format=1)
        floats = np.linspace(-20, 300, W * H, dtype=np.float32).reshape(H, W)
        floats[0, :3] = np.inf, -np.inf, 1e20
        tiff(f"float_{name}.tif", rows_of(floats, 5, order), order, bits=32, rows=5, format=3)
        tiff(f"float_zstd_{name}.tif", zstd(rows_of(floats, 5, order)), order, bits=32, rows=5, format=3, compression=50000)
        tiff(f"rgb16_{name}.tif", rows_of(DEEP, 5, order), order, bits=[16] * 3, samples=3, photometric=2, rows=5)
        tiff(f"rgb16_deflate_{name}.tif", deflate(rows_of(DEEP, 5, order)), order, bits=[16] * 3, samples=3, photometric=2, rows=5, compression=8)
        tiff(f"bilevel_{name}.tif", packed(L > 128, 1).tobytes(), order, bits=1, photometric=0)
    tiff("float_white_is_zero.tif", rows_of(floats, 5), bits=32, rows=5, format=3, photometric=0)
    tiff("double.tif", rows_of(floats.astype(np.float64), 5), bits=64, rows=5, format=3)
    tiff("half.tif", rows_of(np.clip(floats, -9, 300).astype(np.float16), 5), bits=16, rows=5, format=3)
    tiff("grey16_white_is_zero.tif", rows_of(DEEP_GREY, 5), bits=16, rows=5, photometric=0)
    tiff("grey12.tif", packed(DEEP_GREY >> 4, 12).tobytes(), bits=12)
    tiff("signed8.tif", rows_of(L, 4), bits=8, format=2, rows=4)
    for depth in (1, 2, 4, 8):
        low = L >> (8 - depth)
        plain, lows = packed(low, depth).tobytes(), packed(low, depth)
        reverse = np.packbits(np.unpackbits(lows, axis=1, bitorder="little"), axis=1).tobytes()
        colours = np.linspace(0, 65535, 3 << depth).astype(int)[np.random.default_rng(depth).permutation(3 << depth)]
        tiff(f"grey{depth}.tif", plain, bits=depth)
        tiff(f"grey{depth}_white_is_zero.tif", plain, bits=depth, photometric=0)
        tiff(f"grey{depth}_fill.tif", reverse, bits=depth, fill=2)
        tiff(f"grey{depth}_white_fill.tif", reverse, bits=depth, fill=2, photometric=0)
        tiff(f"grey{depth}_white_packbits.tif", packbits([plain]), bits=depth, photometric=0, compression=32773)
        tiff(f"grey{depth}_fill_deflate.tif", [np.packbits(np.unpackbits(np.frombuffer(zlib.compress(plain), np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes()], bits=depth, fill=2, compression=8)
        tiff(f"palette{depth}.tif", plain, bits=depth, photometric=3, map=colours)
        tiff(f"palette{depth}_lzw.tif", lzw([plain]), bits=depth, photometric=3, map=colours, compression=5)
        tiff(f"palette{depth}_fill.tif", reverse, bits=depth, photometric=3, map=colours, fill=2)
    tiff("palette_short.tif", plain, photometric=3, map=colours[:300])
    tiff("palette_none.tif", plain, photometric=3)
    tiff("palette_extra.tif", np.dstack([L, ALPHA]).tobytes(), samples=2, bits=[8, 8], photometric=3, map=colours, extra=0)
    tiff("palette_alpha.tif", np.dstack([L, ALPHA]).tobytes(), samples=2, bits=[8, 8], photometric=3, map=colours, extra=2)
    for kind in (0, 1, 2, 999, None):
        tiff(f"rgb_extra_{kind}.tif", rows_of(np.dstack([ARRAY, ALPHA]), 6), samples=4, bits=[8] * 4, photometric=2, extra=kind, rows=6)
        tiff(f"rgb16_extra_{kind}.tif", rows_of(np.dstack([DEEP, ALPHA.astype(np.uint16) * 257]), 6), samples=4, bits=[16] * 4, photometric=2, extra=kind, rows=6)
    for kind in (0, 1, 2):
        tiff(f"grey_extra_{kind}.tif", np.dstack([L, ALPHA]).tobytes(), samples=2, bits=[8, 8], extra=kind)
    tiff("rgb_five.tif", np.dstack([ARRAY, ALPHA, L]).tobytes(), samples=5, bits=[8] * 5, photometric=2, extra=[1, 0])
    tiff("rgb_five_unsaid.tif", np.dstack([ARRAY, ALPHA, L]).tobytes(), samples=5, bits=[8] * 5, photometric=2)
    tiff("cmyk.tif", CMYK.tobytes(), samples=4, bits=[8] * 4, photometric=5)
    tiff("cmyk_lzw.tif", lzw([CMYK.tobytes()]), samples=4, bits=[8] * 4, photometric=5, compression=5)
    tiff("cmyk_extra.tif", np.dstack([np.asarray(CMYK), L]).tobytes(), samples=5, bits=[8] * 5, photometric=5, extra=0)
    tiff("cmyk16.tif", (np.asarray(CMYK).astype(np.uint16) * 257).tobytes(), samples=4, bits=[16] * 4, photometric=5)
    lab = np.dstack([L, ARRAY[:, :, 0] // 2 + 64, ARRAY[:, :, 1] // 2 + 64])
    tiff("lab.tif", lab.tobytes(), samples=3, bits=[8] * 3, photometric=8)
    tiff("lab_lzw.tif", lzw([lab.tobytes()]), samples=3, bits=[8] * 3, photometric=8, compression=5)
    any_lab = np.random.default_rng(4).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    tiff("lab_any.tif", any_lab.tobytes(), width=40, height=20, rows=20, samples=3, bits=[8] * 3, photometric=8)
    tiff("icclab.tif", lab.tobytes(), samples=3, bits=[8] * 3, photometric=9)
    ycc = np.asarray(RGB.convert("YCbCr"))
    tiff("ycc.tif", ycc.tobytes(), samples=3, bits=[8] * 3, photometric=6, subsampling=[1, 1])
    tiff("ycc_lzw.tif", lzw([ycc.tobytes()]), samples=3, bits=[8] * 3, photometric=6, subsampling=[1, 1], compression=5)
    tiff("ycc_range.tif", deflate([ycc.tobytes()]), samples=3, bits=[8] * 3, photometric=6, subsampling=[1, 1], compression=8, reference=[16, 235, 128, 240, 128, 240])
    for h, v in ((2, 2), (2, 1), (1, 2), (4, 1), (4, 2), (4, 4)):
        wide, high = -(-W // h) * h, -(-H // v) * v
        full = np.pad(ycc, [(0, high - H), (0, wide - W), (0, 0)], mode="edge")
        units = full[:, :, 0].reshape(high // v, v, wide // h, h).transpose(0, 2, 1, 3).reshape(high // v, wide // h, -1)
        data = np.concatenate([units, full[::v, ::h, 1:]], axis=2).tobytes()
        tiff(f"ycc_{h}{v}.tif", data, samples=3, bits=[8] * 3, photometric=6, subsampling=[h, v])
        tiff(f"ycc_{h}{v}_lzw.tif", lzw([data]), samples=3, bits=[8] * 3, photometric=6, subsampling=[h, v], compression=5)
    # Strips, tiles and planes.
    for name, encode, compression in (("raw", list, 1), ("lzw", lzw, 5), ("packbits", packbits, 32773), ("deflate", deflate, 8), ("old_deflate", deflate, 32946), ("zstd", zstd, 50000)):
        tiff(f"strips_{name}.tif", encode(rows_of(ARRAY, 4)), rows=4, compression=compression, **rgb)
        tiff(f"tiles_{name}.tif", encode(tiles_of(WIDE, 16, 16)), tile_width=16, tile_height=16, compression=compression, **PAST, **rgb)
        planes = [s for c in range(3) for s in rows_of(ARRAY[:, :, c], 8)]
        tiff(f"planes_{name}.tif", encode(planes), rows=8, planar=2, compression=compression, **rgb)
    tiff("planes_tiles.tif", deflate([t for c in range(3) for t in tiles_of(WIDE[:, :, c], 16, 16)]), tile_width=16, tile_height=16, planar=2, compression=8, **PAST, **rgb)
    tiff("planes_rgba.tif", [np.dstack([ARRAY, ALPHA])[:, :, c].tobytes() for c in range(4)], planar=2, samples=4, bits=[8] * 4, photometric=2, extra=2)
    tiff("planes_rgbx.tif", [np.dstack([ARRAY, ALPHA])[:, :, c].tobytes() for c in range(4)], planar=2, samples=4, bits=[8] * 4, photometric=2, extra=0)
    tiff("planes_rgbx_lzw.tif", lzw([np.dstack([ARRAY, ALPHA])[:, :, c].tobytes() for c in range(4)]), planar=2, samples=4, bits=[8] * 4, photometric=2, extra=0, compression=5)
    tiff("planes_16.tif", [DEEP[:, :, c].tobytes() for c in range(3)], planar=2, samples=3, bits=[16] * 3, photometric=2)
    tiff("planes_16_lzw.tif", lzw([DEEP[:, :, c].tobytes() for c in range(3)]), planar=2, samples=3, bits=[16] * 3, photometric=2, compression=5)
    tiff("planes_cmyk.tif", lzw([np.asarray(CMYK)[:, :, c].tobytes() for c in range(4)]), planar=2, samples=4, bits=[8] * 4, photometric=5, compression=5)
    tiff("predictor_lzw.tif", lzw(rows_of(differences(ARRAY), 4)), rows=4, predictor=2, compression=5, **rgb)
    tiff("predictor_rgba.tif", zstd(rows_of(differences(np.asarray(RGBA)), 4)), rows=4, predictor=2, compression=50000, samples=4, bits=[8] * 4, photometric=2, extra=2)
    tiff("predictor_raw.tif", rows_of(differences(ARRAY), 4), rows=4, predictor=2, **rgb)
    tiff("predictor_float.tif", deflate([imagecodecs.floatpred_encode(floats[i:i + 5], axis=-1).tobytes() for i in range(0, H, 5)]), rows=5, predictor=3, compression=8, bits=32, format=3)
    tiff("predictor_unknown.tif", lzw(rows_of(ARRAY, 4)), rows=4, predictor=7, compression=5, **rgb)
    tiff("tiles_grey1.tif", tiles_of(packed(WIDE[:, :, 0] > 99, 1), 2, 16), tile_width=16, tile_height=16, bits=1, **PAST)
    tiff("tiles_one.tif", tiles_of(ARRAY, 16, 16), tile_width=16, tile_height=16, **rgb)
    for value in range(1, 10):
        tiff(f"orientation_{value}.tif", rows_of(ARRAY[:9, :13], 4), width=13, height=9, rows=4, orientation=value, **rgb)
    tiff("orientation_6_lzw.tif", lzw(rows_of(ARRAY[:9, :13], 4)), width=13, height=9, rows=4, orientation=6, compression=5, **rgb)
    # Codecs that Pillow writes.
    for compression in ("group3", "group4", "tiff_ccitt"):
        put(f"{compression}.tif", saved(BITS, "TIFF", compression=compression))
        put(f"{compression}_strips.tif", saved(BITS, "TIFF", compression=compression, tiffinfo={278: 5}))
    put("group3_2d.tif", saved(BITS, "TIFF", compression="group3", tiffinfo={292: 1}))
    put("group3_aligned.tif", saved(BITS, "TIFF", compression="group3", tiffinfo={292: 4}))
    put("group4_black_is_zero.tif", saved(BITS, "TIFF", compression="group4", tiffinfo={262: 1}))
    put("group4_fill.tif", saved(BITS, "TIFF", compression="group4", tiffinfo={266: 2}))
    wide = Image.fromarray(scene(90, 40)).convert("L").convert("1", dither=0)
    for compression in ("group3", "group4"):
        put(f"{compression}_wide.tif", saved(wide, "TIFF", compression=compression))
        put(f"{compression}_cut.tif", saved(wide, "TIFF", compression=compression)[:-30])
    for name, image in (("rgb", RGB), ("grey", GREY), ("cmyk", CMYK), ("rgba", RGBA)):
        for compression in ("jpeg", "lzma", "webp", "zstd"):
            try:
                put(f"{name}_{compression}.tif", saved(image, "TIFF", compression=compression))
            except (OSError, KeyError, ValueError):
                pass
    big = Image.fromarray(scene(38, 34))
    put("jpeg_quality.tif", saved(big, "TIFF", compression="jpeg", quality=40))
    put("jpeg_strips.tif", saved(big, "TIFF", compression="jpeg", tiffinfo={278: 16}))
    put("jpeg_ycc.tif", saved(big.convert("YCbCr"), "TIFF", compression="jpeg"))
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        stream = saved(Image.fromarray(scene(40, 32)), "JPEG", subsampling=subsampling)
        h, v = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[subsampling]
        tiff(f"jpeg_{h}{v}.tif", stream, width=40, height=32, rows=32, samples=3, bits=[8] * 3, photometric=6, subsampling=[h, v], compression=7)
        tiff(f"jpeg_rgb_{h}{v}.tif", stream, width=40, height=32, rows=32, samples=3, bits=[8] * 3, photometric=2, compression=7)
    parts = [saved(Image.fromarray(WIDE[:16, x:x + 16]), "JPEG") for x in (0, 7)]
    tiff("jpeg_tiles.tif", parts, width=32, height=16, tile_width=16, tile_height=16, samples=3, bits=[8] * 3, photometric=6, subsampling=[2, 2], compression=7)
    planes = [saved(Image.fromarray(ARRAY[:, :, c]), "JPEG") for c in range(3)]
    tiff("jpeg_planes.tif", planes, samples=3, bits=[8] * 3, photometric=2, planar=2, compression=7)
    tiff("old_jpeg.tif", stream, width=40, height=32, rows=32, samples=3, bits=[8] * 3, photometric=6, compression=6)
    tiff("thunderscan.tif", b"anything", compression=32809)
    tiff("unknown_compression.tif", b"anything", compression=60606)
    put("pages.tif", saved(RGB, "TIFF", save_all=True, append_images=[GREY.rotate(180)]))
    # Damage.
    whole = tiff("missing_strip.tif", lzw(rows_of(ARRAY, 4))[:-1], rows=4, compression=5, **rgb)
    tiff("missing_strip_raw.tif", rows_of(ARRAY, 4)[:-1], rows=4, **rgb)
    for name, data, more in (("grey", L, dict(photometric=0)), ("palette", L, dict(photometric=3, map=colours)), ("cmyk", np.asarray(CMYK), dict(photometric=5, samples=4, bits=[8] * 4)),
                             ("ycc", ycc, dict(photometric=6, samples=3, bits=[8] * 3, subsampling=[1, 1])), ("lab", lab, dict(photometric=8, samples=3, bits=[8] * 3))):
        tiff(f"missing_strip_{name}.tif", rows_of(data, 4)[:-1], rows=4, **more)
    tiff("short_strip.tif", [s[:100] for s in rows_of(ARRAY, 4)], rows=4, **rgb)
    tiff("short_strip_lzw.tif", lzw([s[:100] for s in rows_of(ARRAY, 4)]), rows=4, compression=5, **rgb)
    tiff("short_strip_deflate.tif", deflate([s[:100] for s in rows_of(ARRAY, 4)]), rows=4, compression=8, **rgb)
    tiff("short_strip_packbits.tif", packbits([s[:100] for s in rows_of(ARRAY, 4)]), rows=4, compression=32773, **rgb)
    tiff("short_strip_zstd.tif", zstd([s[:100] for s in rows_of(ARRAY, 4)]), rows=4, compression=50000, **rgb)
    tiff("long_strip_lzw.tif", lzw([s + s for s in rows_of(ARRAY, 4)]), rows=4, compression=5, **rgb)
    tiff("bad_adler.tif", [s[:-1] + b"x" for s in deflate(rows_of(ARRAY, 4))], rows=4, compression=8, **rgb)
    tiff("bits_one.tif", flat, samples=3, bits=8, photometric=2)
    tiff("bits_many.tif", flat, samples=3, bits=[8] * 5, photometric=2)
    tiff("bits_565.tif", flat, samples=3, bits=[5, 6, 5], photometric=2)
    tiff("samples_two.tif", flat, samples=2, bits=[8, 8])
    tiff("no_samples.tif", rows_of(L, H), samples=None, bits=None)
    tiff("no_bits.tif", packed(L > 99, 1).tobytes(), samples=None, bits=None)
    tiff("no_photometric.tif", rows_of(L, H), photometric=None)
    tiff("no_width.tif", flat, width=None, **rgb)
    tiff("no_rows.tif", flat, rows=None, **rgb)
    tiff("rows_many.tif", flat, rows=0xFFFF, **rgb)
    tiff("empty.tif", flat, width=0, **rgb)
    tiff("photometric_unknown.tif", flat, samples=3, bits=[8] * 3, photometric=77)
    put("header_only.tif", b"II*\0\x08\0\0\0")
    put("wrong_magic_order.tif", b"MM*\0" + (FILES / "rgb16_mm.tif").read_bytes()[4:])


# PNG


def chunk(kind, body, crc=None):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)


def png(name, raw, colour, depth, size=(W, H), interlace=0, before=b"", after=b"", end=True, level=9, idat=None, method=0):
    head = struct.pack(">IIBBBBB", *size, depth, colour, method, 0, interlace)
    body = zlib.compress(raw, level)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before
    data += idat(body) if idat else chunk(b"IDAT", body)
    put(name, data + after + (chunk(b"IEND", b"") if end else b""))


def lines(rows, kind=0):
    return b"".join(bytes([kind]) + row.tobytes() for row in rows)


def adam7(pixels, depth):
    out = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = pixels[y::dy, x::dx]
        if part.size:
            rows = packed(part, depth) if depth < 8 else part.reshape(len(part), -1).astype(">u2" if depth == 16 else "u1")
            out += lines(rows)
    return out


def pngs():
    colours = np.random.default_rng(3).integers(0, 256, 768).astype(np.uint8).tobytes()
    alpha = np.dstack([L, ALPHA])
    for depth in (1, 2, 4, 8):
        low = L >> (8 - depth)
        png(f"grey{depth}_interlaced.png", adam7(low, depth), 0, depth, interlace=1)
        plte = chunk(b"PLTE", colours[:3 << depth])
        png(f"palette{depth}.png", lines(packed(low, depth)), 3, depth, before=plte)
        png(f"palette{depth}_interlaced.png", adam7(low, depth), 3, depth, interlace=1, before=plte)
        png(f"palette{depth}_transparent.png", lines(packed(low, depth)), 3, depth, before=plte + chunk(b"tRNS", b"\0\x80"))
    for name, pixels, colour in (("grey", DEEP_GREY[:, :, None], 0), ("rgb", DEEP, 2), ("rgba", np.dstack([DEEP, DEEP_GREY]), 6), ("la", np.dstack([DEEP_GREY, DEEP_GREY]), 4)):
        png(f"{name}16_interlaced.png", adam7(pixels, 16), colour, 16, interlace=1)
        png(f"{name}16.png", lines(pixels.reshape(H, -1).astype(">u2")), colour, 16)
    png("rgb_interlaced.png", adam7(ARRAY, 8), 2, 8, interlace=1)
    png("la_interlaced.png", adam7(alpha, 8), 4, 8, interlace=1)
    png("la.png", lines(alpha), 4, 8)
    png("tiny_interlaced.png", adam7(ARRAY[:1, :1], 8), 2, 8, size=(1, 1), interlace=1)
    png("thin_interlaced.png", adam7(ARRAY[:9, :2], 8), 2, 8, size=(2, 9), interlace=1)
    flat = lines(ARRAY)
    png("palette_short.png", lines(L), 3, 8, before=chunk(b"PLTE", colours[:60]))
    png("palette_none.png", lines(L), 3, 8)
    png("palette_odd.png", lines(L), 3, 8, before=chunk(b"PLTE", colours[:61]))
    png("palette_empty.png", lines(L), 3, 8, before=chunk(b"PLTE", b""))
    png("palette_after.png", lines(L), 3, 8, after=chunk(b"PLTE", colours))
    png("palette_twice.png", lines(L), 3, 8, before=chunk(b"PLTE", colours) + chunk(b"PLTE", colours[::-1]))
    png("transparent_long.png", lines(L), 3, 8, before=chunk(b"PLTE", colours[:60]) + chunk(b"tRNS", bytes(200)))
    png("transparent_short.png", flat, 2, 8, before=chunk(b"tRNS", b"\0\1"))
    png("transparent_early.png", lines(L), 3, 8, before=chunk(b"tRNS", bytes(20)) + chunk(b"PLTE", colours))
    png("transparent_of_alpha.png", lines(np.asarray(RGBA).reshape(H, -1)), 6, 8, before=chunk(b"tRNS", bytes(20)))
    for kind in range(1, 6):
        png(f"filter_{kind}.png", lines(ARRAY, kind), 2, 8)
    png("bad_depth.png", flat, 2, 4)
    png("bad_colour.png", flat, 5, 8)
    png("bad_method.png", flat, 2, 8, method=9)
    png("bad_interlace.png", flat, 2, 8, interlace=3)
    png("empty.png", b"", 2, 8, size=(0, 5))
    # Checksums: of the header, of ancillary chunks, of the data, of the data's own.
    text = (b"tEXt", b"Comment\0nothing")
    png("crc_text.png", flat, 2, 8, before=chunk(*text, crc=1))
    png("crc_text_after.png", flat, 2, 8, after=chunk(*text, crc=1))
    png("crc_private.png", flat, 2, 8, before=chunk(b"prVt", b"abc", crc=1))
    png("crc_palette.png", lines(L), 3, 8, before=chunk(b"PLTE", colours, crc=1))
    png("crc_data.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b, crc=1))
    png("crc_data_second.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b[:200]) + chunk(b"IDAT", b[200:], crc=1))
    png("adler.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b[:-1] + b"!"))
    png("adler_missing.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b[:-4]))
    png("no_end.png", flat, 2, 8, end=False)
    png("no_end_trailing.png", flat, 2, 8, end=False, after=b"some other bytes that are no chunk")
    png("after_end.png", flat, 2, 8, after=chunk(b"IEND", b"") + b"rubbish")
    png("short_data.png", flat[:-100], 2, 8)
    png("long_data.png", flat + bytes(500), 2, 8)
    png("short_last_pixel.png", flat[:-1], 2, 8)
    png("many_data.png", flat, 2, 8, idat=lambda b: b"".join(chunk(b"IDAT", b[i:i + 7]) for i in range(0, len(b), 7)))
    png("empty_data.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b"") + chunk(b"IDAT", b))
    png("split_data.png", flat, 2, 8, idat=lambda b: chunk(b"IDAT", b[:200]) + chunk(*text) + chunk(b"IDAT", b[200:]))
    png("no_data.png", flat, 2, 8, idat=lambda b: b"")
    png("stored_data.png", flat, 2, 8, level=0)
    png("critical_unknown.png", flat, 2, 8, before=chunk(b"ABCD", b"what"))
    png("name_bad.png", flat, 2, 8, before=chunk(b"a\0b!", b"what"))
    png("gamma_short.png", flat, 2, 8, before=chunk(b"gAMA", b"\0"))
    png("gamma.png", flat, 2, 8, before=chunk(b"gAMA", b"\0\0\x11\x11") + chunk(b"sRGB", b"\0") + chunk(b"bKGD", bytes(6)))
    png("profile_bad.png", flat, 2, 8, before=chunk(b"iCCP", b"x\0\0notzlib"))
    png("profile_method.png", flat, 2, 8, before=chunk(b"iCCP", b"x\0\7notzlib"))
    png("physical_short.png", flat, 2, 8, before=chunk(b"pHYs", b"abc"))
    put("no_header.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", zlib.compress(flat)) + chunk(b"IEND", b""))
    put("text_first.png", b"\x89PNG\r\n\x1a\n" + chunk(*text) + (FILES / "la.png").read_bytes()[8:])
    whole = saved(RGB, "PNG")
    at = whole.index(b"IHDR")
    put("crc_header.png", whole[:at + 17] + b"\0\0\0\0" + whole[at + 21:])
    for cut in (4, 8, 12, 16, 20, 100, len(whole) // 2):
        put(f"cut_{cut}.png", whole[:-cut])
    put("header_cut.png", whole[:20])
    put("animated.png", saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180), GREY.convert("RGB")], duration=50))
    put("animated_default.png", saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)], default_image=True))
    png("animated_empty.png", flat, 2, 8, before=chunk(b"acTL", struct.pack(">II", 0, 0)))
    png("animated_inset.png", lines(ARRAY[:6, :8]), 2, 8, before=chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 6, 3, 2, 1, 10, 0, 0)))


# JPEG


def jpegs():
    big = Image.fromarray(scene(56, 40))
    for name, image, options in (
        ("420", big, dict(quality=75, subsampling="4:2:0")), ("444", RGB, dict(quality=90, subsampling="4:4:4")),
        ("422", big, dict(quality=60, subsampling="4:2:2")), ("grey", GREY, {}), ("progressive", big, dict(progressive=True)),
        ("restarts", big, dict(restart_marker_blocks=3)), ("optimised", big, dict(optimize=True)),
    ):
        data = saved(image, "JPEG", **options)
        put(f"{name}_end_zeros.jpg", data[:-2] + b"\0\0")
        put(f"{name}_no_end.jpg", data[:-2])
        for more in (1, 2, 3, 4, 5, 6, 7, 8, 9, 16):
            if name == "420" or more in (4, 8):
                put(f"{name}_end_{more}.jpg", data[:-2] + bytes(more))
        put(f"{name}_cut.jpg", data[:-40])
        if name in ("422", "444", "optimised"):
            continue
        put(f"{name}_cut_ended.jpg", data[:-40] + b"\xff\xd9")
        put(f"{name}_many_zeros.jpg", data[:-200] + bytes(200))
        put(f"{name}_all_zeros.jpg", data[:700] + bytes(900))
        put(f"{name}_trailing.jpg", data + b"trailing bytes \xff\xd8\xff")
        flipped = data.copy()
        flipped[len(data) * 2 // 3] ^= 0x10
        put(f"{name}_flipped.jpg", flipped)
    large = saved(Image.fromarray(scene(15, 10, noise=0)).resize((600, 400)), "JPEG", quality=75, subsampling="4:2:0")
    put("large_end_zeros.jpg", large[:-2] + b"\0\0")
    put("large_many_zeros.jpg", large[:-5000] + bytes(5000))
    for name, image in (("cmyk", CMYK), ("grey", GREY)):
        put(f"{name}.jpg", saved(image, "JPEG"))
    adobe = saved(CMYK, "JPEG", quality=90)
    mark = adobe.index(b"Adobe")
    for transform in (0, 1, 2):
        adobe[mark + 11] = transform
        put(f"cmyk_transform_{transform}.jpg", adobe)
    put("cmyk_no_adobe.jpg", adobe[:mark - 4] + adobe[mark + 12:])
    plain = saved(RGB, "JPEG", quality=90, subsampling="4:4:4")
    for transform in (0, 1, 2):
        put(f"adobe_{transform}.jpg", plain[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + plain[20:])
    put("no_jfif.jpg", plain[:2] + plain[20:])
    frame = plain.index(b"\xff\xc0")
    named = plain[:2] + plain[20:]
    at = named.index(b"\xff\xc0")
    scan = named.index(b"\xff\xda")
    for i, letter in enumerate(b"RGB"):
        named[at + 10 + 3 * i] = letter
        named[scan + 5 + 2 * i] = letter
    put("ids_rgb.jpg", named)
    put("tables_missing.jpg", plain[:plain.index(b"\xff\xc4")] + plain[plain.index(b"\xff\xda"):])
    put("precision_12.jpg", plain[:frame + 4] + b"\x0c" + plain[frame + 5:])
    put("arithmetic.jpg", plain[:frame + 1] + b"\xc9" + plain[frame + 2:])
    put("lossless.jpg", plain[:frame + 1] + b"\xc3" + plain[frame + 2:])
    put("extended.jpg", plain[:frame + 1] + b"\xc1" + plain[frame + 2:])
    put("height_zero.jpg", plain[:frame + 5] + b"\0\0" + plain[frame + 7:])
    put("height_more.jpg", plain[:frame + 5] + b"\0\x40" + plain[frame + 7:])
    put("height_less.jpg", plain[:frame + 5] + b"\0\x08" + plain[frame + 7:])
    put("fill_bytes.jpg", plain[:2] + b"\xff\xff\xff" + plain[2:])
    put("rubbish_between.jpg", plain[:20] + b"\0\0rubbish" + plain[20:])
    put("header_only.jpg", plain[:plain.index(b"\xff\xda")])
    put("start_only.jpg", b"\xff\xd8\xff")
    put("two_images.jpg", plain + saved(GREY, "JPEG"))
    put("pictures.mpo", saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]))
    exif = Image.Exif()
    exif[0x0112] = 6
    put("orientation.jpg", saved(RGB, "JPEG", exif=exif))


# WebP


def webps():
    lossless = dict(lossless=True, exact=True)
    wide, alpha = Image.fromarray(WIDE), Image.fromarray(np.dstack([WIDE, WIDE[:, ::-1, 0]]))
    inset = saved(Image.fromarray(np.pad(np.asarray(RGBA)[:8, :11], [(6, 5), (8, 9), (0, 0)])), "WEBP", **lossless)
    small = {name: saved(image.crop((0, 0, 20, 16)), "WEBP", **options) for name, image, options in (
        ("lossless", wide, dict(lossless=True)), ("lossy", wide, dict(quality=70)), ("lossless_alpha", alpha, lossless), ("lossy_alpha", alpha, dict(quality=70)),
    )}
    for name, data in small.items():
        chunks = data[12:]
        if chunks[:4] == b"VP8X":
            chunks = chunks[18:]
        for flags in (0, 1, 2, 3):
            for at in ((6, 8), (0, 0)):
                frame = struct.pack("<I", at[0] // 2)[:3] + struct.pack("<I", at[1] // 2)[:3] + struct.pack("<I", 19)[:3] + struct.pack("<I", 15)[:3] + struct.pack("<I", 70)[:3] + bytes([flags])
                for background in ((b"\x10\x20\x30\x40", b"\xff\xff\xff\xff") if flags == 0 else (b"\xff\xff\xff\xff",)):
                    for canvas_alpha in (0, 0x10):
                        if at == (0, 0) and (flags in (1, 2) or "lossy" in name) or canvas_alpha and flags in (1, 2):
                            continue
                        body = b"VP8X" + struct.pack("<IB3x", 10, 2 | canvas_alpha) + struct.pack("<I", 31)[:3] * 2
                        body += b"ANIM" + struct.pack("<I", 6) + background + b"\0\0"
                        anmf = b"ANMF" + struct.pack("<I", len(frame) + len(chunks)) + frame + chunks
                        body += anmf * (2 if flags == 0 else 1)
                        put(f"animated_{name}_{flags}_{at[0]}_{background[0]}_{canvas_alpha}.webp", b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)
    put("inset.webp", inset)
    put("animated.webp", saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)], quality=60))
    put("grey.webp", saved(GREY, "WEBP", quality=60))
    put("lossy.webp", saved(RGB, "WEBP", quality=50))
    put("lossy_alpha.webp", saved(RGBA, "WEBP", quality=50))
    put("lossless.webp", saved(RGB, "WEBP", lossless=True))
    put("odd.webp", saved(RGB.crop((0, 0, 1, 17)), "WEBP", quality=50))
    for name, data in (("lossy", saved(RGB, "WEBP", quality=50)), ("lossless", saved(RGB, "WEBP", lossless=True)), ("lossy_alpha", saved(RGBA, "WEBP", quality=50))):
        put(f"{name}_cut.webp", data[:-30])
        put(f"{name}_cut_1.webp", data[:-1])
        put(f"{name}_trailing.webp", data + b"trailing")
        put(f"{name}_size_less.webp", data[:4] + struct.pack("<I", len(data) - 40) + data[8:])
        put(f"{name}_size_more.webp", data[:4] + struct.pack("<I", len(data) + 40) + data[8:])
        put(f"{name}_size_zero.webp", data[:4] + struct.pack("<I", 0) + data[8:])
    exif = Image.Exif()
    exif[0x0112] = 6
    put("orientation.webp", saved(RGB, "WEBP", exif=exif, quality=50))
    put("header.webp", b"RIFF\x20\0\0\0WEBPVP8 ")


# GIF


def gifs():
    for name, image, options in (
        ("interlaced", RGB.quantize(32), dict(interlace=1)), ("two_colours", BITS, {}), ("grey", GREY, {}),
        ("transparent", RGB.quantize(32), dict(transparency=3)), ("comment", RGB.quantize(8), dict(comment=b"nothing")),
    ):
        put(f"{name}.gif", saved(image, "GIF", **options))
    base = saved(RGB.quantize(8), "GIF")
    frame = base.index(b",", 13 + 3 * 8)

    def changed(name, at, value, data=base):
        data = bytearray(data)
        data[at:at + len(value)] = value
        put(f"{name}.gif", data)

    changed("version", 3, b"87a")
    changed("version_odd", 3, b"88a")
    changed("screen_zero", 6, bytes(4))
    changed("screen_small", 6, struct.pack("<HH", 9, 7))
    changed("screen_large", 6, struct.pack("<HH", 40, 30))
    changed("overhang", frame + 1, struct.pack("<HH", 6, 2))
    changed("frame_zero", frame + 5, bytes(2))
    changed("background", 11, b"\5")
    changed("code_size_0", frame + 10, b"\0")
    changed("code_size_1", frame + 10, b"\1")
    changed("code_size_12", frame + 10, b"\x0c")
    changed("code_size_13", frame + 10, b"\x0d")
    changed("frame_more", frame + 7, struct.pack("<H", H + 6))
    changed("frame_less", frame + 7, struct.pack("<H", H - 6))
    changed("bytes_flipped", frame + 40, b"\x77\x12\xfe")
    put("no_trailer.gif", base[:-1])
    put("no_terminator.gif", base[:-2])
    for cut in (3, 4, 10, 60):
        put(f"cut_{cut}.gif", base[:-cut])
    put("no_frame.gif", base[:frame] + b";")
    put("rubbish_before_frame.gif", base[:frame] + b"\0\1\2" + base[frame:])
    # No palette at all: shades of grey.
    data = base[:13] + base[frame:]
    data[10] = 0x70
    put("no_palette.gif", data)
    local = base[:13] + base[13 + 24:frame + 9] + bytes([base[frame + 9] | 0x82]) + base[13:13 + 24] + base[frame + 10:]
    local[10] &= 0x7F
    put("local_palette.gif", local)
    control = b"!\xf9\x04\x01\0\0\x02\0"
    inset = bytearray(base[:frame] + control + base[frame:])
    inset[6:10] = struct.pack("<HH", W + 9, H + 5)
    inset[frame + 9:frame + 13] = struct.pack("<HH", 4, 3)
    put("inset_transparent.gif", inset)
    put("animated.gif", saved(RGB.quantize(32), "GIF", save_all=True, append_images=[RGB.rotate(180).quantize(32)], disposal=2))
    put("header.gif", base[:10])


# BMP


def bmp(name, bits, data, compression=0, size=(W, H), palette=b"", masks=b"", head=40, colours=0, offset=None, planes=1):
    w, h = size
    info = struct.pack("<IiiHHIIiiII", head, w, h, planes, bits, compression, len(data), 2835, 2835, colours, 0)
    if head == 12:
        info = struct.pack("<IHHHH", 12, w, h, planes, bits)
    info += masks if head <= 40 else masks.ljust(head - 40, b"\0")
    start = 14 + len(info) + len(palette)
    start = start if offset is None else offset
    put(f"{name}.bmp", struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(palette) + len(data), 0, 0, start) + info + palette + bytes(data))


def padded(rows, flip=True):
    rows = rows.reshape(len(rows), -1)
    rows = rows.view(np.uint8).reshape(len(rows), -1)
    rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 4)])
    return (rows[::-1] if flip else rows).tobytes()


def rle8(values):
    out = bytearray()
    for row in values[::-1]:
        i = 0
        while i < len(row):
            run = 1
            while i + run < len(row) and row[i + run] == row[i]:
                run += 1
            if run < 2 and i + 5 < len(row):
                out += bytes([0, 5, *row[i:i + 5], 0])
                i += 5
            else:
                out += bytes([run, row[i]])
                i += run
        out += b"\0\0"
    return bytes(out + b"\0\1")


def rle4(values):
    out = bytearray()
    for row in values[::-1]:
        i = 0
        while i < len(row):
            if i % 3 == 0 and i + 5 <= len(row):
                a = list(row[i:i + 5]) + [0]
                out += bytes([0, 5, a[0] << 4 | a[1], a[2] << 4 | a[3], a[4] << 4, 0])
                i += 5
            else:
                out += bytes([1, row[i] << 4 | row[i]])
                i += 1
        out += b"\0\0"
    return bytes(out + b"\0\1")


def bmps():
    rng = np.random.default_rng(5)
    colours = np.pad(rng.integers(0, 256, (256, 3)), [(0, 0), (0, 1)]).astype(np.uint8)
    greys = np.repeat(np.arange(256)[:, None], 4, 1).astype(np.uint8)
    bgr = ARRAY[:, :, ::-1].copy()
    bmp("rgb24", 24, padded(bgr))
    bmp("top_down", 24, padded(bgr, False), size=(W, -H))
    bmp("os2", 24, padded(bgr), head=12)
    bmp("os2_palette", 8, padded(L), head=12, palette=colours[:, :3].tobytes())
    bmp("os2_v2", 24, padded(bgr), head=64)
    bmp("rgb32", 32, padded(np.dstack([bgr, ALPHA])))
    bmp("rgb32_v4", 32, padded(np.dstack([bgr, ALPHA])), head=108, compression=3, masks=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    bmp("rgb32_v5", 32, padded(np.dstack([bgr, ALPHA])), head=124, compression=3, masks=struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    bmp("rgb32_odd_masks", 32, padded(np.dstack([bgr, ALPHA])), compression=3, masks=struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00))
    bmp("rgb32_unknown_masks", 32, padded(np.dstack([bgr, ALPHA])), compression=3, masks=struct.pack("<III", 0xF000000, 0xFF0000, 0xFF00))
    bmp("rgb24_masks", 24, padded(bgr), compression=3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF))
    sixteen = (np.arange(W * H) * 1771 % 65536).astype(np.uint16).reshape(H, W)
    bmp("rgb16", 16, padded(sixteen))
    bmp("rgb555", 16, padded(sixteen), compression=3, masks=struct.pack("<III", 0x7C00, 0x3E0, 0x1F))
    bmp("rgb565", 16, padded(sixteen), compression=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    bmp("rgb565_top_down", 16, padded(sixteen, False), compression=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F), size=(W, -H))
    bmp("rgb444", 16, padded(sixteen), compression=3, masks=struct.pack("<III", 0xF00, 0xF0, 0xF))
    for bits in (1, 2, 4, 8):
        rows = packed(L >> (8 - bits), bits)
        for name, palette in (("colour", colours), ("grey", greys[:: 256 >> bits] if bits < 8 else greys)):
            bmp(f"palette{bits}_{name}", bits, padded(rows), palette=palette[:1 << bits].tobytes())
    bmp("palette1_black_white", 1, padded(packed(L > 99, 1)), palette=bytes(4) + b"\xff\xff\xff\0")
    bmp("palette1_white_black", 1, padded(packed(L > 99, 1)), palette=b"\xff\xff\xff\0" + bytes(4))
    bmp("palette8_few", 8, padded(L >> 3), palette=colours[:32].tobytes(), colours=32)
    bmp("palette8_too_few", 8, padded(L), palette=colours[:32].tobytes(), colours=32)
    bmp("palette8_many", 8, padded(L), palette=colours.tobytes(), colours=999)
    bmp("palette4_top_down", 4, padded(packed(L >> 4, 4), False), palette=colours[:16].tobytes(), size=(W, -H))
    bmp("rle8", 8, rle8(L >> 3 << 3), compression=1, palette=colours.tobytes())
    bmp("rle8_top_down", 8, rle8(L[::-1] >> 3 << 3), compression=1, palette=colours.tobytes(), size=(W, -H))
    bmp("rle4", 4, rle4(L >> 4), compression=2, palette=colours[:16].tobytes())
    bmp("rle8_delta", 8, b"\5\x09\0\2\3\1\4\7\0\0\6\2\0\2\0\5\0\1", compression=1, palette=colours.tobytes())
    bmp("rle8_end_early", 8, rle8(L)[:100] + b"\0\1", compression=1, palette=colours.tobytes())
    bmp("rle8_cut", 8, rle8(L)[:100], compression=1, palette=colours.tobytes())
    bmp("rle8_no_end", 8, rle8(L)[:-2], compression=1, palette=colours.tobytes())
    bmp("rle8_over", 8, b"\xff\x09" * 20, compression=1, palette=colours.tobytes())
    bmp("jpeg", 0, saved(RGB, "JPEG"), compression=4)
    bmp("unknown_compression", 24, padded(bgr), compression=9)
    bmp("bits_3", 3, padded(bgr))
    bmp("offset_zero", 24, padded(bgr), offset=0)
    bmp("offset_later", 24, b"\0" * 7 + padded(bgr), offset=61)
    bmp("cut", 24, padded(bgr)[:-200])
    bmp("cut_1", 24, padded(bgr)[:-1])
    bmp("cut_4", 24, padded(bgr)[:-4])
    bmp("head_52", 24, padded(bgr), head=52)
    bmp("head_56", 32, padded(np.dstack([bgr, ALPHA])), head=56, compression=3, masks=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    bmp("head_unknown", 24, padded(bgr), head=77)
    bmp("planes", 24, padded(bgr), planes=3)
    bmp("width_negative", 24, padded(bgr), size=(-W, H))
    bmp("empty", 24, b"", size=(0, H))
    data = (FILES / "rgb24.bmp").read_bytes()
    put("device_independent.dib", data[14:])
    put("bitmap_header.bmp", data[:20])


# Other formats


def ppms():
    shape = f"{W} {H}".encode()
    put("rgb.ppm", b"P6\n" + shape + b"\n255\n" + ARRAY.tobytes())
    put("comment.ppm", b"P6 # kind\n# a comment\n" + shape + b" # size\n255\n" + ARRAY.tobytes())
    put("rgb_100.ppm", b"P6 " + shape + b" 100\n" + (ARRAY // 3).tobytes())
    put("rgb_over.ppm", b"P6 " + shape + b" 100\n" + ARRAY.tobytes())
    put("rgb_16.ppm", b"P6 " + shape + b" 65535\n" + DEEP.astype(">u2").tobytes())
    put("rgb_1000.ppm", b"P6 " + shape + b" 1000\n" + (DEEP // 66).astype(">u2").tobytes())
    put("rgb_text.ppm", b"P3 " + shape + b" 255\n" + " ".join(map(str, ARRAY.ravel())).encode())
    put("rgb_text_comment.ppm", b"P3 " + shape + b" 255\n# note\n" + "\n".join(map(str, ARRAY.ravel())).encode() + b" # end")
    put("rgb_text_cut.ppm", b"P3 " + shape + b" 255\n" + " ".join(map(str, ARRAY.ravel()[:-9])).encode())
    put("rgb_text_over.ppm", b"P3 " + shape + b" 90\n" + " ".join(map(str, ARRAY.ravel())).encode())
    put("rgb_text_16.ppm", b"P3 " + shape + b" 65535\n" + " ".join(map(str, DEEP.ravel())).encode())
    put("rgb_text_letters.ppm", b"P3 " + shape + b" 255\n12 a 13" + " ".join(map(str, ARRAY.ravel())).encode())
    put("grey.pgm", b"P5\n" + shape + b"\n255\n" + L.tobytes())
    put("grey_9.pgm", b"P5\n" + shape + b"\n9\n" + (L // 29).tobytes())
    put("grey_16.pgm", b"P5\n" + shape + b"\n65535\n" + DEEP_GREY.astype(">u2").tobytes())
    put("grey_300.pgm", b"P5\n" + shape + b"\n300\n" + (DEEP_GREY % 301).astype(">u2").tobytes())
    put("grey_text.pgm", b"P2\n" + shape + b"\n255\n" + " ".join(map(str, L.ravel())).encode())
    put("grey_text_16.pgm", b"P2\n" + shape + b"\n65535\n" + " ".join(map(str, DEEP_GREY.ravel())).encode())
    put("bits.pbm", b"P4\n" + shape + b"\n" + packed(L > 99, 1).tobytes())
    put("bits_text.pbm", b"P1\n" + shape + b"\n" + "".join(map(str, (L > 99).astype(int).ravel())).encode())
    put("bits_text_spaces.pbm", b"P1\n" + shape + b"\n" + " ".join(map(str, (L > 99).astype(int).ravel())).encode())
    put("bits_text_bad.pbm", b"P1\n" + shape + b"\n" + "2".join(map(str, (L > 99).astype(int).ravel())).encode())
    put("cut.ppm", b"P6\n" + shape + b"\n255\n" + ARRAY.tobytes()[:-5])
    put("trailing.ppm", b"P6\n" + shape + b"\n255\n" + ARRAY.tobytes() + b"more")
    put("maximum_zero.ppm", b"P6\n" + shape + b"\n0\n" + ARRAY.tobytes())
    put("maximum_large.ppm", b"P6\n" + shape + b"\n70000\n" + ARRAY.tobytes())
    put("size_letters.ppm", b"P6\n2x 3\n255\n" + ARRAY.tobytes())
    put("size_zero.ppm", b"P6\n0 3\n255\n")
    put("size_negative.ppm", b"P6\n-3 3\n255\n" + ARRAY.tobytes())
    put("token_long.ppm", b"P6\n00000000000000000000000029 21\n255\n" + ARRAY.tobytes())
    put("header.ppm", b"P6\n29")
    put("arbitrary.pam", b"P7\nWIDTH 29\nHEIGHT 21\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + ARRAY.tobytes())
    put("py_rgba.ppm", b"PyRGBA\n" + shape + b"\n255\n" + RGBA.tobytes())
    put("py_cmyk.ppm", b"PyCMYK\n" + shape + b"\n255\n" + CMYK.tobytes())
    put("py_palette.ppm", b"PyP\n" + shape + b"\n255\n" + L.tobytes())
    floats = np.linspace(-20, 300, W * H, dtype=np.float32).reshape(H, W)
    put("float_little.pfm", b"Pf\n" + shape + b"\n-1.0\n" + floats[::-1].astype("<f4").tobytes())
    put("float_big.pfm", b"Pf\n" + shape + b"\n2.5\n" + floats[::-1].astype(">f4").tobytes())
    put("float_zero.pfm", b"Pf\n" + shape + b"\n0\n" + floats[::-1].astype(">f4").tobytes())
    put("float_rgb.pfm", b"PF\n" + shape + b"\n-1.0\n" + np.dstack([floats] * 3).tobytes())


def tgas():
    palette = RGB.quantize(40)
    for name, image in (("rgb", RGB), ("rgba", RGBA), ("grey", GREY), ("la", RGBA.convert("LA")), ("palette", palette), ("bits", BITS)):
        for compression in (None, "tga_rle"):
            if name == "bits" and compression:
                continue
            put(f"{name}{'_rle' if compression else ''}.tga", saved(image, "TGA", compression=compression))
    put("top_down.tga", saved(RGB, "TGA", orientation=1))
    data = saved(RGB, "TGA")
    put("cut.tga", data[:-200])
    put("cut_rle.tga", saved(RGB, "TGA", compression="tga_rle")[:-300])
    right = data.copy()
    right[17] |= 0x10
    put("right_to_left.tga", right)
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, W, H, 16, 0x20)
    put("rgb16.tga", head + (np.arange(W * H) * 1771 % 65536).astype(np.uint16).tobytes())
    maps = np.random.default_rng(1).integers(0, 256, (64, 4)).astype(np.uint8)
    for bits in (16, 24, 32):
        head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 3, 60, bits, 0, 0, W, H, 8, 0x20)
        put(f"palette_{bits}.tga", head + maps[:60, :bits // 8].tobytes() + (L >> 2).tobytes())
    put("with_id.tga", struct.pack("<BBBHHBHHHHBB", 5, 0, 3, 0, 0, 0, 0, 0, W, H, 8, 0x20) + b"hello" + L.tobytes())


def icons():
    square = WIDE[:16, :16]
    picture = Image.fromarray(np.dstack([square, square[:, :, 1]]))
    put("one.ico", saved(picture, "ICO", sizes=[(16, 16)]))
    put("several.ico", saved(Image.fromarray(scene(32, 32) & 0xC0), "ICO", sizes=[(16, 16), (24, 24), (32, 32)]))
    put("bitmap.ico", saved(picture, "ICO", sizes=[(16, 16)], bitmap_format="bmp"))
    put("bitmaps.ico", saved(Image.fromarray(scene(20, 20) & 0xC0).convert("RGBA"), "ICO", sizes=[(16, 16), (20, 20)], bitmap_format="bmp"))

    def icon(name, bits, pixels, palette=b"", side=16, mask=True, size=None):
        info = struct.pack("<IiiHHIIiiII", 40, side, 2 * side, 1, bits, 0, 0, 0, 0, 0, 0)
        body = info + palette + pixels + (bytes([0xF0, 0x0F, 0, 0]) * side if mask else b"")
        put(f"{name}.ico", struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", size or side, size or side, 0, 0, 1, bits, len(body), 22) + body)

    part = square[:, :, 0]
    colours = np.pad(np.random.default_rng(2).integers(0, 256, (256, 3)), [(0, 0), (0, 1)]).astype(np.uint8)
    for bits in (1, 4, 8):
        icon(f"palette{bits}", bits, padded(packed(part >> (8 - bits), bits)), colours[:1 << bits].tobytes())
    icon("rgb24", 24, padded(square[:, :, ::-1].copy()))
    icon("rgb32", 32, padded(np.dstack([square, square[:, :, 0]])[:, :, [2, 1, 0, 3]].copy()))
    icon("cut_mask", 24, padded(square[:, :, ::-1].copy()), mask=False)
    icon("size_wrong", 24, padded(square[:, :, ::-1].copy()), size=20)
    whole = saved(picture, "ICO", sizes=[(16, 16)])
    put("cut.ico", whole[:-40])
    put("none.ico", b"\0\0\1\0\0\0")
    cursor = bytearray((FILES / "rgb24.ico").read_bytes())
    cursor[2] = 2
    put("cursor.cur", cursor)


def others():
    put("qoi_rgb.qoi", imagecodecs.qoi_encode(ARRAY))
    put("qoi_rgba.qoi", imagecodecs.qoi_encode(np.asarray(RGBA).copy()))
    put("qoi_cut.qoi", imagecodecs.qoi_encode(ARRAY)[:-60])
    put("text.txt", b"no image at all")
    put("vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>")
    put("document.pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n")
    put("empty.png.none", b"")
    put("archive.zip", b"PK\x05\x06" + bytes(18))
    put("radiance.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + bytes(4))
    put("picture.jxl", bytes.fromhex("ff0a") + bytes(30))
    put("picture.heic", struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40))


def expected():
    """Pillow's result for each file."""
    found = {}
    warnings.simplefilter("ignore")
    for path in sorted(FILES.iterdir()):
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
            found[path.name] = [*rgb.size, hashlib.sha256(rgb.tobytes()).hexdigest()[:16]]
        except Exception:
            found[path.name] = None
    return found


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    for path in FILES.iterdir():
        path.unlink()
    for write in (tiffs, pngs, jpegs, webps, gifs, bmps, ppms, tgas, icons, others):
        write()
    found = expected()
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    (HERE / "expected.json").write_text("{\n" + rows + "\n}\n")
    size = sum(path.stat().st_size for path in FILES.iterdir())
    refused = sum(value is None for value in found.values())
    print(f"Pillow {PIL.__version__}: {len(found)} files of {size} bytes, {refused} refused")
