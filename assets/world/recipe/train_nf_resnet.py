"""Trains timm's NF-ResNet, made small, on class labels alone: train_nf_resnet.py OUT --held FOLDER DATA."""
import json

import timm
import torch
from safetensors.torch import save_file

import data

SIDE = 64
SIZES = {"depths": [1, 2, 2, 1], "channels": [64, 128, 256, 320], "stem_chs": 32}


def build(classes):
    return timm.create_model("nf_resnet26", num_classes=classes, **{k: tuple(v) if isinstance(v, list) else v for k, v in SIZES.items()})


def main():
    args, rng = data.begin(steps=1600, lr=3e-3, seed=3)
    array, marks, classes = data.labelled(args.data, SIDE)
    model = build(len(classes)).to(memory_format=torch.channels_last)
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)

    def save():
        state = {k: v.half().contiguous() for k, v in model.state_dict().items()}
        save_file(state, args.out / "model.safetensors", metadata={"format": "pt"})
        cfg = {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3,
               "crop_pct": 1.0, "num_classes": len(classes), "first_conv": "stem.conv", "classifier": "head.fc"}
        config = {"architecture": "nf_resnet26", "num_classes": len(classes), "num_features": SIZES["channels"][-1],
                  "global_pool": "avg", "model_args": SIZES, "pretrained_cfg": cfg}
        (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def loss_of(_step):
        x, rows = data.batch(array, rng.integers(len(array), size=args.batch), rng)
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x).float()
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, marks[rows], reduction="sum") / args.batch

    data.fit(model.parameters(), args.steps, args.lr, loss_of, save)
    array, marks, _ = data.labelled(args.held, SIDE)
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(torch.from_numpy(array[i:i + 100].copy()).float() / 127.5 - 1) for i in range(0, len(array), 100)])
    print(f"average precision {data.average_precision(scores, marks):.1f}, of colours with shapes {data.average_precision(scores[:, 15:], marks[:, 15:]):.1f}")


if __name__ == "__main__":
    main()
