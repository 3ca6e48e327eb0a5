"""python compile_network.py '[["elliptical", {"scaling": "mean"}], ...]'

Compiles one network that has a layer of each kind, and prints how far its logits are from those of its eager self.

It is its own process because the type checks that the tests switch on cannot be compiled, and one network because
most of the time of a compilation does not depend on its size.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from attnbench.attacks.draw import Draw
from attnbench.bench.noise import drawn
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.site import Site
from attnbench.models.variant import Variant
from attnbench.models.vit import VisionTransformer, VisionTransformerShape

BATCH = 11


def core(site: Site, layers: Sequence[tuple[str, dict[str, Any]]]) -> nn.Module:
    name, settings = layers[site.layer]
    module = importlib.import_module(f"attnbench.models.variants.{name}")
    variant = next(v for v in vars(module).values() if isinstance(v, Variant))
    measured = {quantity: torch.full((site.heads,), 0.8) for quantity in variant.measured}
    built: nn.Module = variant.core(site, **{**variant.settings, **settings}, **measured)
    return built


def difference(layers: Sequence[tuple[str, dict[str, Any]]]) -> float:
    shape = VisionTransformerShape(image=6, channels=2, patch=2, dim=15, depth=len(layers), heads=5, classes=7)
    model = VisionTransformer(shape, partial(core, layers=layers))
    draw_initial_values(model, 0)
    pixels = torch.rand(BATCH, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    noise = drawn(model.noise(), [str(i) for i in range(BATCH)], Draw(0, "", "test"))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    return float((compiled(pixels, noise) - model(pixels, noise)).abs().max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(str(difference(json.loads(sys.argv[1]))))
