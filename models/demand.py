"""What a variant asks of the backbone that carries it: tokens of its own, another norm, another's parameter count."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .variant import Variant
from .vit import VisionTransformer, VisionTransformerShape


def carrying(shape: VisionTransformerShape, variant: Variant, settings: Mapping[str, Any]) -> VisionTransformerShape:
    """Return the sizes of the network that carries a variant: with the extra tokens and the norm that it asks for."""
    tokens = int(settings[variant.extra_tokens]) if variant.extra_tokens else 0
    return shape._replace(extra_tokens=tokens, norm=variant.norm)


def parameter_count(core: Callable[..., nn.Module], settings: Mapping[str, Any], shape: VisionTransformerShape) -> int:
    """Return the number of scalars that a network would learn, without filling any of them."""
    with torch.device("meta"):
        model = VisionTransformer(shape, lambda site: core(site, **settings))
    return sum(p.numel() for p in model.parameters())


def widened(
    shape: VisionTransformerShape, core: Callable[..., nn.Module], settings: Mapping[str, Any], parameters: int
) -> VisionTransformerShape:
    """Return the shape whose MLPs are as wide as brings the network closest to a number of parameters.

    One more hidden unit in every block is the step, so the number is met to within half of depth x (2 dim + 1). Raises
    ValueError where no width from 1 comes that close.
    """
    step = shape.depth * (2 * shape.dim + 1)
    missing = parameters - parameter_count(core, settings, shape)
    hidden = round(shape.dim * shape.mlp_ratio) + round(missing / step)
    if hidden < 1:
        raise ValueError(
            f"no MLP is narrow enough for {parameters} parameters in this network; choose a donor with more of them"
        )
    return shape._replace(mlp_ratio=hidden / shape.dim)
