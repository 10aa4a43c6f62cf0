"""Writes tiny SigLIPs in the forms that `encoders/siglip` must load, what transformers computes with their vision towers,
and the moments of transformers' random initialisation.

Run: `python tests/golden/siglip/export.py`
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import liven, moments, start, write_json, write_tensors  # noqa: E402

# Four pixels are left over beside three patches, as six are in so400m-patch14-384.
VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, image_size=28, patch_size=8, layer_norm_eps=1e-3)
TEXT = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=12, max_position_embeddings=4,
            bos_token_id=None, eos_token_id=None, projection_size=24)
# google/siglip-base-patch16-224's.
PROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"height": 28, "width": 28},
}


@torch.no_grad()
def compute(tower, images, name):
    """Hidden states, the last after the layer norm, the head's vector; positions resized for the other side."""
    kept = {}
    for side, image in images.items():
        out = tower.eval()(image, interpolate_pos_encoding=side != 28, output_hidden_states=True)
        kept[f"{name}.{side}.last"] = out.last_hidden_state
        if out.pooler_output is not None:
            kept[f"{name}.{side}.pooled"] = out.pooler_output
        if side == 28:
            kept |= {f"{name}.{side}.hidden.{i}": state for i, state in enumerate(out.hidden_states)}
            # What the layer norm makes of a state in the middle.
            kept[f"{name}.{side}.normed.2"] = tower.post_layernorm(out.hidden_states[2])
    return kept


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    generator = torch.Generator().manual_seed(6)
    images = {side: torch.randn(2, 3, side, side, generator=generator) for side in [28, 40]}
    tensors = {f"image.{side}": image for side, image in images.items()}

    both = liven(SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT)), generator)
    save(both, folder / "both")
    write_json(folder / "both/preprocessor_config.json", PROCESSOR)
    tensors |= compute(both.vision_model, images, "both")

    headless = liven(SiglipVisionModel(SiglipVisionConfig(**VISION | {"hidden_act": "gelu"}, vision_use_head=False)), generator)
    save(headless, folder / "headless")
    tensors |= compute(headless, images, "headless")
    write_tensors(folder / "expected.safetensors", tensors)

    sizes = dict(hidden_size=128, intermediate_size=160, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16)
    SiglipVisionModel(SiglipVisionConfig(**sizes)).save_pretrained(folder / "drawn")
    drawn = moments(load_file(folder / "drawn/model.safetensors"))
    shutil.rmtree(folder / "drawn")
    write_json(folder / "expected.json", {"sizes": sizes, "drawn": drawn})
