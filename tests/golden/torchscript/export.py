"""Writes TorchScript archives, traced and scripted, as OpenAI publishes CLIP, and their tensors.

The modules are a block of a ModifiedResNet and all else that attributes may hold; `clip_resnet/torchscript.pt` is a whole tower.

Run: `python tests/golden/torchscript/export.py`
"""

import sys
import warnings
from pathlib import Path

import torch
from open_clip.modified_resnet import Bottleneck

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

SIDE = 8


class Parts(torch.nn.Module):
    """What a pickle of attributes may hold beside a module tree: shared parameters, lists, dictionaries, texts, no value."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(2, 3, bias=False)])
        self.tied = self.blocks[0].weight
        self.scale = torch.nn.Parameter(torch.tensor(2.5, dtype=torch.float16))
        self.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("steps", torch.tensor([3, 4]))
        self.sizes = [1, 2, 3]
        self.rates = {"a": 0.5}
        self.label = "RN-tiny"
        self.nothing: int | None = None

    def forward(self, image):
        return self.visual(image) * self.scale + self.strided.sum() + float(self.steps.sum())


def describe(module):
    return {name: {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "values": t.detach().double().flatten()[:8].tolist(),
                   "sum": t.detach().double().sum().item()} for name, t in module.state_dict().items()}


if __name__ == "__main__":
    folder = start(__file__, "torch", "open_clip_torch", seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Parts(Bottleneck(4, 2)).eval()
        archives = {"traced.pt": torch.jit.trace(model, torch.zeros(1, 4, SIDE, SIDE), check_trace=False), "scripted.pt": torch.jit.script(model)}
        for file, archive in archives.items():
            torch.jit.save(archive, str(folder / file))
            archives[file] = describe(torch.jit.load(str(folder / file)))
    write_json(folder / "expected.json", archives)
    print({file: (len(tensors), (folder / file).stat().st_size) for file, tensors in archives.items()})
