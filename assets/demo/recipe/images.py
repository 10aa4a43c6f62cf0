"""CLIP's preprocessing, as Pillow does it, and a cache of preprocessed images."""
import pathlib

import numpy as np
import torch
from PIL import Image

SIDE = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def pixels(path, side=SIDE):
    """The image as u8 [3, S, S]: shorter side to S (bicubic, antialiased), centre crop."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((round(width * side / short), round(height * side / short)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side))).transpose(2, 0, 1)


def cached(folder, entries):
    """All images of a data set as one memory-mapped u8 array [B, 3, S, S]."""
    folder = pathlib.Path(folder)
    file = folder / f"pixels-{SIDE}-{len(entries)}.npy"
    if not file.exists():
        part = file.with_suffix(".part.npy")
        array = np.lib.format.open_memmap(part, "w+", np.uint8, (len(entries), 3, SIDE, SIDE))
        for i, entry in enumerate(entries):
            array[i] = pixels(folder / entry["image_path"])
        array.flush()
        part.rename(file)
    return np.load(file, mmap_mode="r")


def normalised(batch):
    """u8 [B, 3, S, S] to the f32 that the encoder reads, in memory order NHWC, which is faster on CPUs."""
    x = torch.from_numpy(np.array(batch)).to(memory_format=torch.channels_last).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
