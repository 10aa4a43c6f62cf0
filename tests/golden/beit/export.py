"""Writes tiny BEiTs in the forms that `encoders/beit` must load, what transformers computes with them, the pixels of its
image processor, and the moments of its random initialisation.

Run: `python tests/golden/beit/export.py`
"""

import json
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling, BeitModel
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import refill, start, write_json, write_tensors  # noqa: E402

SIZES = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, patch_size=8, num_labels=3, vocab_size=7)
# Each with the side of another image, which the position tables must be resized for.
CASES = {
    "layers": (BeitForImageClassification, 40, dict(image_size=32, use_relative_position_bias=True)),
    "shared": (BeitForMaskedImageModeling, 24, dict(image_size=32, use_shared_relative_position_bias=True, use_mask_token=True)),
    "absolute": (BeitModel, 47, dict(image_size=30, use_absolute_position_embeddings=True, use_mean_pooling=False, layer_scale_init_value=0.0)),
    "both": (BeitModel, 52, dict(image_size=30, use_absolute_position_embeddings=True, use_relative_position_bias=True,
                                 use_shared_relative_position_bias=True, use_mean_pooling=False, hidden_act="gelu_new", layer_norm_eps=1e-3)),
}
# Image processors of several ages; every key that is absent is the class's own.
PROCESSORS = {
    "old": {"feature_extractor_type": "BeitFeatureExtractor", "crop_size": 224, "do_center_crop": False, "do_normalize": True,
            "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2, "size": 18},
    "old-crop": {"feature_extractor_type": "BeitFeatureExtractor", "crop_size": 18, "do_center_crop": True, "do_normalize": True,
                 "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 24},
    "new": {"image_processor_type": "BeitImageProcessor", "size": {"height": 18, "width": 18}, "do_center_crop": False},
    "plain": {"image_processor_type": "BeitImageProcessor", "size": {"height": 18, "width": 18}, "do_normalize": False, "resample": 2},
    "shorter": {"image_processor_type": "BeitImageProcessor", "size": {"shortest_edge": 18}, "do_center_crop": True,
                "crop_size": {"height": 18, "width": 18}},
}


def fill(model, generator):
    """Random weights under which every part of the model counts: bias tables, layer scale, norms and biases among them."""
    def value(name, weight, noise):
        if "bias_table" in name or "cls_token" in name or "position_embeddings" in name:
            return noise
        if "lambda" in name:
            return 0.6 + 0.3 * noise
        if weight.dim() < 2:
            gain = "layernorm" in name and name.endswith("weight")
            return 1.0 + 0.3 * noise if gain else 0.3 * noise if name.endswith("bias") else noise
        gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
        return gain * noise / weight[0].numel() ** 0.5

    return refill(model, generator, value).eval()


def build(case, seed):
    kind, _, settings = CASES[case]
    config = BeitConfig(**{**SIZES, **settings})
    config._attn_implementation = "eager"
    return fill(kind(config), torch.Generator().manual_seed(seed))


def trunk(model):
    return model if isinstance(model, BeitModel) else model.beit


def write_forms(folder, models):
    for case, model in models.items():
        shutil.rmtree(folder / case, ignore_errors=True)
        model.save_pretrained(folder / case)

    # As the hub's files from 2021 are: a pickle with the index of every table as a buffer, an older config.json.
    state = OrderedDict()
    window = (4, 4)
    for name, tensor in load_file(folder / "layers/model.safetensors").items():
        state[name] = tensor
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = BeitRelativePositionBias.generate_relative_position_index(window)
    torch.save(state, folder / "layers/pytorch_model.bin")
    (folder / "layers/model.safetensors").unlink()
    old = json.loads((folder / "layers/config.json").read_text())
    for key in ["dtype", "transformers_version", "add_fpn", "reshape_hidden_states", "out_features", "out_indices", "stage_names"]:
        old.pop(key, None)
    old |= {"_name_or_path": "a-folder-that-is-not-here", "torch_dtype": "float32", "transformers_version": "4.11.0.dev0",
            "out_indices": [3, 5, 7, 11], "num_attention_heads": SIZES["num_attention_heads"], "num_channels": 3}
    write_json(folder / "layers/config.json", old)
    write_json(folder / "layers/preprocessor_config.json", {**PROCESSORS["old"], "size": 32})

    # transformers 5's own names, as a state dict that never went through `save_pretrained`.
    torch.save(OrderedDict(models["both"].state_dict()), folder / "both/pytorch_model.bin")
    (folder / "both/model.safetensors").unlink()


@torch.no_grad()
def expect(case, model, generator):
    tensors = {}
    for prefix, side in [("", CASES[case][2]["image_size"]), ("other.", CASES[case][1])]:
        image = torch.randn(1 if prefix else 2, 3, side, side, generator=generator)
        out = trunk(model)(image, output_hidden_states=True)
        tensors[f"{case}.{prefix}image"] = image
        tensors[f"{case}.{prefix}last"] = out.last_hidden_state
        if not prefix:
            assert len(out.hidden_states) == SIZES["num_hidden_layers"] + 1
            tensors |= {f"{case}.hidden.{i}": state for i, state in enumerate(out.hidden_states)}
    last, states = tensors[f"{case}.last"], out.hidden_states
    assert torch.equal(out.last_hidden_state, states[-1]) == model.config.use_mean_pooling
    print(case, f"standard deviation {last.std():.2f}")
    return tensors


def influence(case, model, image):
    """How much the features change without the bias tables: they must matter for a test to mean anything."""
    with torch.no_grad():
        before = trunk(model)(image).last_hidden_state
        kept = {n: p.clone() for n, p in model.named_parameters() if "bias_table" in n or "position_embeddings" in n}
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.zero_()
        after = trunk(model)(image).last_hidden_state
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    return ((after - before).norm() / before.norm()).item()


def pixels(generator):
    """A photo-like picture [30, 45, 3] and what transformers' Pillow processor makes of it."""
    y, x = numpy.mgrid[0:30, 0:45]
    waves = numpy.stack([128 + 100 * numpy.sin(x * a + y * b) for a, b in [(0.3, 0.1), (0.05, 0.7), (0.9, 0.4)]], -1)
    noise = torch.randn(waves.shape, generator=generator).numpy()
    picture = (waves + 8 * noise).clip(0, 255).astype(numpy.uint8)
    tensors = {"pixels.picture": torch.from_numpy(picture.astype(numpy.int64))}
    for name, settings in PROCESSORS.items():
        processor = BeitImageProcessorPil.from_dict(settings)
        found = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
        tensors[f"pixels.{name}"] = found.float()
    return tensors


def moments(folder):
    """What `BeitModel`'s constructor draws, under the names in files."""
    config = BeitConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=64, patch_size=8,
                        use_absolute_position_embeddings=True, use_relative_position_bias=True, use_shared_relative_position_bias=True,
                        use_mean_pooling=False, initializer_range=0.03, layer_scale_init_value=0.07)
    BeitModel(config).save_pretrained(folder / "drawn")
    drawn = {}
    for name, tensor in load_file(folder / "drawn/model.safetensors").items():
        x = tensor.double()
        spread = x.std(unbiased=False).item()
        drawn[name] = {"shape": list(x.shape), "mean": x.mean().item(), "std": spread}
        if spread > 0:
            drawn[name]["kurtosis"] = (((x - x.mean()) / spread) ** 4).mean().item()
    shutil.rmtree(folder / "drawn")
    keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size",
            "use_absolute_position_embeddings", "use_relative_position_bias", "use_shared_relative_position_bias", "use_mean_pooling",
            "initializer_range", "layer_scale_init_value"]
    return {"settings": {key: getattr(config, key) for key in keys}, "tensors": drawn}


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy", "pillow")
    generator = torch.Generator().manual_seed(5)
    models = {case: build(case, seed) for seed, case in enumerate(CASES, 1)}
    write_forms(folder, models)
    tensors = {}
    for case, model in models.items():
        tensors |= expect(case, model, generator)
        share = influence(case, model, tensors[f"{case}.image"])
        print(case, f"positions move the features by {share:.2f}")
        assert share > 0.1, case
    tensors |= pixels(generator)
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"processors": PROCESSORS, "random": moments(folder)})
