"""Writes a tiny plain vision transformer as timm saves it, and what timm computes with it: for the plugin in
`plugins/examples/timm-vit`.

Run: `python tests/golden/timm_vit/export.py`
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import liven, start, write_tensors  # noqa: E402

folder = start(__file__, "torch", "timm", "safetensors")
model = VisionTransformer(
    img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2, num_classes=5, global_pool="token"
).eval()
liven(model, torch.Generator().manual_seed(0))
with torch.no_grad():
    pixels = torch.randn(2, 3, 32, 32)
    tokens = model.forward_features(pixels)
    write_tensors(folder / "expected.safetensors", {"pixels": pixels, "features": tokens[:, 1:]})
save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(folder / "model.safetensors"))
