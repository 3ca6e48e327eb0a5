"""Where each pixel may go, and the walk that climbs inside such confines with steps of any kind.

A ball around an image and a few patches that are free in [0, 1] are the same thing: a lowest and a highest value of
each pixel. Where the two are equal the pixel stays as it is, to the last bit.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..draw import Draw
from ..samples import Samples
from .ascent import record
from .ladder import Found, where
from .look import Look, View

Pixels = Float[Tensor, "batch channel height width"]

Eye = Callable[[Samples, Tensor], View]
"""Called with the samples that are left and their row numbers; returns a view with the gradient that is climbed."""
Stride = Callable[[int, Tensor, Tensor], Tensor]
"""Called with the number of the step, the row numbers and the gradient; returns by how much to move."""


@runtime_checkable
class Confines(Protocol):
    """Where a walk may go, with room of its own for each sample."""

    def rows(self, chosen: Tensor) -> "Confines":
        """Return the confines of some samples."""
        ...

    def project(self, points: Tensor) -> Tensor:
        """Return the closest allowed points."""
        ...


class Region(NamedTuple):
    """The box that each pixel of each image may move in."""

    lowest: Pixels
    """Smallest allowed values."""
    highest: Pixels
    """Largest allowed values."""

    def rows(self, chosen: Tensor) -> "Region":
        """Return the boxes of some images."""
        return Region(self.lowest[chosen], self.highest[chosen])

    def project(self, points: Pixels) -> Pixels:
        """Return the closest allowed images."""
        return points.maximum(self.lowest).minimum(self.highest)

    def start(self, samples: Samples, draw: Draw) -> Pixels:
        """Return uniform points of the boxes, from noise that neither the boxes nor a model change."""
        noise = draw.named("start").uniform(samples.ids, samples.pixels.shape[1:]).to(samples.pixels)
        return self.project(self.lowest + (self.highest - self.lowest) * noise)

    @property
    def free(self) -> Bool[Tensor, "batch channel height width"]:
        """Which pixels may move at all."""
        return self.lowest < self.highest


def around(clean: Pixels, eps: float) -> Region:
    """Return the L-inf ball of size eps, cut by [0, 1]."""
    return Region((clean - eps).clamp_min(0), (clean + eps).clamp_max(1))


def set_free(clean: Pixels, free: Bool[Tensor, "batch 1 height width"]) -> Region:
    """Return [0, 1] where pixels are set free, and the clean image elsewhere."""
    return Region(clean.masked_fill(free, 0.0), clean.masked_fill(free, 1.0))


def signed(length: float) -> Stride:
    """Return steps of one length along the sign of the gradient."""

    def stride(step: int, rows: Int[Tensor, " row"], gradient: Pixels) -> Pixels:
        return length * gradient.sign()

    return stride


def wander(
    samples: Samples, confines: Confines, begun: Pixels, steps: int, look: Look, eye: Eye, stride: Stride
) -> Found:
    """Walk from given points and return what a search has to.

    A deterministic model's samples leave as soon as they are fooled; a stochastic one's points are kept by their loss.
    What is fooled at the last point a plain look decides.
    """
    kept = Found(
        begun.clone(),
        torch.zeros_like(samples.labels, dtype=torch.bool),
        torch.full_like(samples.labels, -torch.inf, dtype=begun.dtype),
    )
    rows, here = torch.arange(len(samples.ids)), begun
    for step in range(steps + 1):
        if not len(rows):
            break
        left = samples.rows(rows)._replace(pixels=here)
        view = eye(left, rows) if step < steps else look(left)
        better = torch.ones_like(view.fooled) if look.deterministic else view.loss > kept.loss[rows]
        record(kept, rows[where(better)], Found(here[better], view.fooled[better], view.loss[better]))
        if view.gradient is None:
            break
        going = where(~view.fooled) if look.deterministic else torch.arange(len(rows))
        rows = rows[going]
        here = confines.rows(rows).project(here[going] + stride(step, rows, view.gradient[going]))
    return kept


def check_walk(steps: int, step: float, restarts: int) -> None:
    """Refuse counts that mean nothing and steps of no length. Raises ValueError."""
    if min(steps, restarts) < 1 or step <= 0:
        raise ValueError(
            f"steps and restarts must be at least 1 and a step longer than 0, got steps={steps}, restarts={restarts} "
            f"and a step of {step}"
        )


def untouched(samples: Samples) -> Found:
    """Return the images as they came, for a number of patches that leaves nothing to search."""
    return Found(
        samples.pixels,
        torch.zeros_like(samples.labels, dtype=torch.bool),
        torch.full_like(samples.labels, -torch.inf, dtype=samples.pixels.dtype),
    )
