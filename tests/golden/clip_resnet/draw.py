"""Writes the moments of every tensor of a CLIP ResNet as open_clip initialises it: `drawn.json`.

Run: `python tests/golden/clip_resnet/draw.py`
"""

import sys
from pathlib import Path

import torch
from open_clip.modified_resnet import ModifiedResNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import moments, write_json  # noqa: E402


def main():
    torch.manual_seed(3)
    tower = ModifiedResNet(layers=(1, 2, 1, 1), output_dim=16, heads=4, image_size=64, width=32)
    state = {f"visual.{name}": value for name, value in tower.state_dict().items()
             if not name.startswith("attnpool.") and not name.endswith("num_batches_tracked")}
    write_json(Path(__file__).parent / "drawn.json", moments(state))
    print(f"{len(state)} tensors")


if __name__ == "__main__":
    main()
