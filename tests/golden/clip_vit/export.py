"""Writes tiny CLIP vision transformers in the forms that `encoders/clip-vit` must load, and what they compute.

Run: `python tests/golden/clip_vit/export.py`
"""

import copy
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors, write_torchscript  # noqa: E402

# 18 is no multiple of 4: the grid is 4 x 4, two rows and columns of pixels are never seen.
SIDE, PATCH, WIDTH, EMBED = 18, 4, 16, 10
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": SIDE, "layers": 3, "width": WIDTH, "head_width": 4, "patch_size": PATCH, "mlp_ratio": 1.7}
OPENAI = {"image_size": 24, "layers": 2, "width": 64, "patch_size": 6, "mlp_ratio": 0.25}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2], "interpolation": "bilinear", "resize_mode": "squash"}


def liven(module, generator):
    """Random weights with which every tensor counts: gains around 1, biases that are not 0, scores that are not alike."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() == 0:
                continue
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("gamma"):
                p.copy_(0.7 + 0.2 * noise)
            elif p.dim() == 1 and ("ln_" in name or "norm" in name) and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.3 * noise)
            elif "position" in name:
                p.copy_(0.5 * noise)
            elif name.endswith("proj") and "out_proj" not in name:
                p.copy_(noise * p.shape[0] ** -0.5)
            else:
                p.copy_(1.5 * noise * p[0].numel() ** -0.5)
    return module.eval()


@torch.no_grad()
def open_clip_states(visual, image):
    """Patch tokens of every hidden state, of the last one normed, and the pooled projection."""
    x = visual._embeds(image)
    kept = {"hidden.0": x[:, 1:]}
    for i, block in enumerate(visual.transformer.resblocks):
        x = block(x)
        kept[f"hidden.{i + 1}"] = x[:, 1:]
    # open_clip's own way to the same tokens.
    own = visual.forward_intermediates(image, output_fmt="NLC")["image_intermediates"]
    assert all(torch.equal(own[i], kept[f"hidden.{i + 1}"]) for i in range(len(own)))
    kept["normed"] = visual.forward_intermediates(image, output_fmt="NLC", normalize_intermediates=True)["image_intermediates"][-1]
    kept["pooled"] = visual(image)[:, None]
    return kept


@torch.no_grad()
def hugging_face_states(tower, image, projection):
    out = tower(image, output_hidden_states=True)
    kept = {f"hidden.{i}": x[:, 1:] for i, x in enumerate(out.hidden_states)}
    kept["normed"] = tower.post_layernorm(out.last_hidden_state[:, 1:])
    kept["pooled"] = projection(out.pooler_output)[:, None]
    return kept


def under(prefix, states):
    return {f"{prefix}.{name}": value for name, value in states.items()}


def clip(vision, quick, generator, **vision_keys):
    config = {"embed_dim": EMBED, "vision_cfg": vision | vision_keys, "text_cfg": TEXT} | ({"quick_gelu": True} if quick else {})
    return config, liven(open_clip.model.CLIP(**config), generator)


def write_open_clip(folder, config, model):
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": PREPROCESS})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors", {"format": "pt"})


def with_weights_of(model, config):
    other = open_clip.model.CLIP(**config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def moments(draws):
    """Of every tensor over all draws: count, mean, deviation, and the share of values within one deviation of the mean."""
    found = {}
    for name in draws[0]:
        values = torch.cat([draw[name].flatten().double() for draw in draws])
        mean, std = values.mean(), values.std(correction=0)
        within = ((values - mean).abs() <= std).double().mean()
        found[name] = [values.numel(), mean.item(), std.item(), within.item()]
    return found


if __name__ == "__main__":
    folder = start(__file__, "torch", "open_clip_torch", "transformers", "safetensors", "numpy")
    for name in ["open_clip", "variant", "hugging_face", "tower", "bare_tower"]:
        shutil.rmtree(folder / name, ignore_errors=True)
    generator = torch.Generator().manual_seed(5)
    tensors = {"image": torch.randn(2, 3, SIDE, SIDE, generator=generator), "openai.image": torch.randn(2, 3, 24, 24, generator=generator)}
    image = tensors["image"]

    # open_clip: GELU where its config says nothing; the same weights under other settings of its config.
    config, model = clip(VISION, False, generator)
    write_open_clip(folder / "open_clip", config, model)
    torch.save(OrderedDict((k, v.clone()) for k, v in model.visual.state_dict().items()), folder / "visual.pt")
    tensors |= under("open_clip", open_clip_states(model.visual, image))
    for name, change in [
        ("quick", {"quick_gelu": True}),
        ("tanh", {"vision_cfg": config["vision_cfg"] | {"act_kwargs": {"approximate": "tanh"}}}),
        ("epsilon", {"vision_cfg": config["vision_cfg"] | {"norm_kwargs": {"eps": 0.1}}}),
    ]:
        states = open_clip_states(with_weights_of(model, config | change).visual, image)
        apart = (states["pooled"] - tensors["open_clip.pooled"]).norm() / tensors["open_clip.pooled"].norm()
        print(f"{name}: {apart:.1e} from the config's own")
        # The tests allow 1e-5, so a wrong activation cannot pass.
        assert apart > 3e-5
        tensors |= under(name, {k: states[k] for k in ["hidden.2", "pooled"]})

    # CLIPA's missing first norm, and layer scale.
    config, model = clip(VISION | {"layers": 2}, False, generator, no_ln_pre=True, ls_init_value=1e-4, patch_dropout=0.5)
    write_open_clip(folder / "variant", config, model)
    tensors |= under("variant", open_clip_states(model.visual, image))

    # OpenAI's archives: half precision but for norms, positions and class token; three sizes beside the weights.
    config, model = clip(OPENAI, True, generator)
    open_clip.model.convert_weights_to_fp16(model)
    openai = OrderedDict((k, v.clone()) for k, v in model.state_dict().items() if k.startswith("visual."))
    assert openai["visual.conv1.weight"].dtype == torch.float16 and openai["visual.ln_pre.weight"].dtype == torch.float32
    sizes = {"input_resolution": 24, "context_length": 8, "vocab_size": 16}
    torch.save(OrderedDict([*openai.items(), *((k, torch.tensor(v)) for k, v in sizes.items())]), folder / "openai.pt")
    rounded = model.float().eval()
    tensors |= under("openai", open_clip_states(rounded.visual, tensors["openai.image"]))
    write_torchscript(folder / "torchscript.pt", rounded.visual, openai, sizes)

    # Hugging Face: the whole model with QuickGELU, a tower with GELU, a tower without projection and prefix.
    vision = {"hidden_size": WIDTH, "intermediate_size": 28, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SIDE, "patch_size": PATCH}
    text = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16, max_position_embeddings=8, bos_token_id=14, eos_token_id=15)
    whole = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=CLIPVisionConfig(**vision).to_dict(), projection_dim=EMBED))
    liven(whole, generator).save_pretrained(folder / "hugging_face")
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=PREPROCESS["mean"]).save_pretrained(folder / "hugging_face")
    tensors |= under("hugging_face", hugging_face_states(whole.vision_model, image, whole.visual_projection))
    assert torch.equal(whole.get_image_features(image).pooler_output[:, None], tensors["hugging_face.pooled"])
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision | {"num_hidden_layers": 2}, hidden_act="gelu", layer_norm_eps=1e-3, projection_dim=EMBED))
    liven(tower, generator).save_pretrained(folder / "tower")
    tensors |= under("tower", hugging_face_states(tower.vision_model, image, tower.visual_projection))
    assert torch.equal(tower(image).image_embeds[:, None], tensors["tower.pooled"])
    bare = CLIPVisionModel(copy.deepcopy(tower.config)).eval()
    bare.load_state_dict(tower.vision_model.state_dict())
    bare.save_pretrained(folder / "bare_tower")

    # What transformers draws for a new tower; small deviations of many draws, so that a wrong formula shows.
    drawn = CLIPVisionConfig(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
                             projection_dim=20, initializer_factor=1.5, initializer_range=0.03)
    draws = [CLIPVisionModelWithProjection(drawn).state_dict() for _ in range(40)]
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"init": moments(draws)})
