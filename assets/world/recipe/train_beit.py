"""Trains transformers' BEiT, made small, on masked patches alone, or goes on from there with class labels.

train_beit.py OUT --held FOLDER DATA            masked patches; the visual words are clusters of patches
train_beit.py OUT --start FOLDER ... DATA       class labels, from the weights of the first
"""
import json

import numpy as np
import torch
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling

import data

SIDE, PATCH, WORDS = 64, 16, 1024


def config(**more):
    return BeitConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
        image_size=SIDE, patch_size=PATCH, use_mask_token=True, use_shared_relative_position_bias=True, **more)


def patches(x):
    """Pixels [B, 3, S, S] to patches [B, N, 3 * P * P]."""
    b, n = x.shape[0], SIDE // PATCH
    x = x.contiguous().view(b, 3, n, PATCH, n, PATCH)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, -1)


class Words:
    """k-means over patches in their first principal components: what dVAE codes are to the original."""

    def __init__(self, array, rng, components=48, rounds=6):
        x = torch.from_numpy(np.array(array[np.sort(rng.choice(len(array), 2500, replace=False))])).float() / 127.5 - 1
        p = patches(x).flatten(0, 1)
        self.mean = p.mean(0)
        _, _, v = torch.pca_lowrank(p - self.mean, components, niter=4)
        self.axes = v
        z = (p - self.mean) @ v
        self.centres = z[torch.from_numpy(rng.choice(len(z), WORDS, replace=False))].clone()
        for _ in range(rounds):
            nearest = self.nearest(z)
            sums = torch.zeros_like(self.centres).index_add_(0, nearest, z)
            counts = torch.bincount(nearest, minlength=WORDS)
            lost = counts == 0
            self.centres = sums / counts.clamp(min=1)[:, None]
            # A cluster that lost all its patches begins anew at one of them.
            self.centres[lost] = z[torch.from_numpy(rng.choice(len(z), int(lost.sum()), replace=False))]

    def nearest(self, z):
        half = (self.centres ** 2).sum(1) / 2
        return torch.cat([(half - part @ self.centres.T).argmin(1) for part in z.split(8192)])

    def of(self, x):
        """Words [B, N] of pixels."""
        b = x.shape[0]
        return self.nearest((patches(x).flatten(0, 1) - self.mean) @ self.axes).view(b, -1)


def block_mask(rng, size, side=SIDE // PATCH, share=0.4):
    """BEiT masks blocks, not single patches: rectangles until the share is reached."""
    masks = np.zeros((size, side, side), bool)
    for mask in masks:
        while mask.sum() < share * side * side:
            h, w = rng.integers(1, 3, 2)
            y, x = rng.integers(0, side - h + 1), rng.integers(0, side - w + 1)
            mask[y:y + h, x:x + w] = True
    return torch.from_numpy(masks.reshape(size, -1))


def main():
    start = lambda parser: parser.add_argument("--start", help="weights that labels go on from")  # noqa: E731
    args, rng = data.begin(steps=3000, lr=1.5e-3, seed=4, more=start)
    array, marks, classes = data.labelled(args.data, SIDE)
    if args.start:
        model = BeitForImageClassification.from_pretrained(
            args.start, dtype=torch.float32, num_labels=len(classes), id2label=dict(enumerate(classes)),
            label2id={c: i for i, c in enumerate(classes)})
    else:
        model = BeitForMaskedImageModeling(config())
        words = Words(array, rng)
    model.train()
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)

    def save():
        # Shards, so that no file is large; the heads are part of no encoder.
        trunk = type(model.beit)(model.config, add_pooling_layer=False)
        trunk.load_state_dict(model.beit.state_dict(), strict=False)
        trunk.half().save_pretrained(args.out, max_shard_size="900KB")
        processor = {"image_processor_type": "BeitImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE},
                     "resample": 3, "do_center_crop": False, "do_rescale": True, "rescale_factor": 1 / 255,
                     "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (args.out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")

    right = []

    def loss_of(step):
        x, rows = data.batch(array, rng.integers(len(array), size=args.batch), rng)
        if args.start:
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(x).logits.float()
            return torch.nn.functional.binary_cross_entropy_with_logits(scores, marks[rows], reduction="sum") / args.batch
        mask = block_mask(rng, args.batch)
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x, bool_masked_pos=mask).logits.float()[mask]
        targets = words.of(x)[mask]
        right.append((scores.argmax(1) == targets).float().mean().item())
        if step % 100 == 99:
            print(f"right words {np.mean(right[-100:]):.3f}", end=" ")
        return torch.nn.functional.cross_entropy(scores, targets)

    data.fit(model.parameters(), args.steps, args.lr, loss_of, save)
    if args.start:
        array, marks, _ = data.labelled(args.held, SIDE)
        model.eval()
        with torch.no_grad():
            scores = torch.cat([model(torch.from_numpy(array[i:i + 100].copy()).float() / 127.5 - 1).logits for i in range(0, len(array), 100)])
        print(f"average precision {data.average_precision(scores, marks):.1f}, of colours with shapes {data.average_precision(scores[:, 15:], marks[:, 15:]):.1f}")


if __name__ == "__main__":
    main()
