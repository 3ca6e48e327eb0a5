"""The two balls that an attack may walk in: where it starts, which way is steepest, and how it comes back inside."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..draw import Draw
from ..ordered_sum import ordered_sum

Pixels = Float[Tensor, "batch channel height width"]


ROUNDING = 2**-23
"""Spacing of the largest pixels in float32: how far rounding an image may lengthen a perturbation."""


class Ball(NamedTuple):
    """All perturbations of a norm up to eps, cut by the box of pixels in [0, 1]."""

    random_start: Callable[[Draw, Sequence[str], Sequence[int]], Tensor]
    """Points of the unit ball, uniform by volume, from the ids and the shape of one image."""
    normalize: Callable[[Tensor], Tensor]
    """The direction of unit length that rises fastest, from the gradient."""
    project: Callable[[Tensor, Tensor, float], Tensor]
    """The points moved into the ball of size eps around the clean ones, then into the box."""


def start_linf(draw: Draw, ids: Sequence[str], shape: Sequence[int]) -> Pixels:
    """Return uniform numbers on [-1, 1)."""
    return draw.uniform(ids, shape).mul_(2).sub_(1)


def normalize_linf(gradient: Pixels) -> Pixels:
    """Return the sign, 0 where the gradient is 0."""
    return gradient.sign()


def project_linf(pixels: Pixels, clean: Pixels, eps: float) -> Pixels:
    """Clamp the perturbation, then the pixels."""
    return (pixels - clean).clamp_(-eps, eps).add_(clean).clamp_(0, 1)


def box(pixels: Pixels, clean: Pixels, eps: float) -> Pixels:
    """Clamp the pixels alone, for a step that cannot leave the ball."""
    return pixels.clamp(0, 1)


def start_l2(draw: Draw, ids: Sequence[str], shape: Sequence[int]) -> Pixels:
    """Return normal directions with radius u^(1/dimension), which is uniform by volume.

    The power is taken number by number, since a vectorised one rounds the last few of a batch differently.
    """
    direction = draw.normal(ids, shape)
    shares = draw.named(f"{draw.name}.radius").uniform(ids, ()).tolist()
    radius = torch.tensor([share ** (1 / math.prod(shape)) for share in shares], dtype=direction.dtype)
    return direction / length(direction) * radius[:, None, None, None]


def normalize_l2(gradient: Pixels) -> Pixels:
    """Return the gradient at unit length, 0 where it is 0.

    No constant is added to the length: torchattacks' 1e-10 all but stops the samples that a model is sure of.
    """
    return gradient / length(gradient)


def project_l2(pixels: Pixels, clean: Pixels, eps: float) -> Pixels:
    """Shorten the perturbation to eps where it is longer; then clamp the pixels."""
    return shortened(pixels - clean, clean, torch.full_like(clean[:, 0, 0, 0], eps, dtype=torch.float64))


def shortened(delta: Pixels, clean: Pixels, limits: Float[Tensor, " batch"]) -> Pixels:
    """Return the images at the end of perturbations that are shortened to a length of their own, in the box.

    The rounding of one pixel is taken off. On images whose pixels are alike the errors of all of them add up instead:
    there, as measured in float64, as much as they can add up to.
    """
    longest, limits = length(delta), limits[:, None, None, None]

    def end(slack: Tensor | float) -> Pixels:
        share = ((limits - slack).clamp_min(0) / longest).clamp(max=1).to(delta)
        return (clean + delta * share).clamp_(0, 1)

    found = end(ROUNDING)
    over = length(found.double() - clean.double()) > limits
    if not over.any():
        return found
    return torch.where(over, end(math.sqrt(clean[0].numel()) * ROUNDING / 4 + 2 * ROUNDING * limits), found)


def length(vectors: Pixels) -> Float[Tensor, "batch 1 1 1"]:
    """Return each image's Euclidean length; the smallest normal number where it is less."""
    squares = ordered_sum(vectors.flatten(1).double() ** 2)
    return squares.sqrt().clamp_min(torch.finfo(vectors.dtype).tiny).to(vectors.dtype)[:, None, None, None]


BALLS: Mapping[str, Ball] = {
    "linf": Ball(start_linf, normalize_linf, project_linf),
    "l2": Ball(start_l2, normalize_l2, project_l2),
}
"""By the name of the norm."""
