"""Measures a perturbation anew, in float64: no number is believed because an attack promised to stay inside."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LINF_TOLERANCE = 2.0**-23
"""Absolute; correct float32 attacks exceed eps by 1 to 2.4e-8."""
L2_TOLERANCE = 1e-6
"""Relative to eps; of lengths in the stream too."""


class Perturbation(NamedTuple):
    """How far some inputs were moved, and whether they are still images."""

    largest: float
    """Largest size of a perturbation; 0 where there is no ball."""
    lowest: float
    """Smallest pixel."""
    highest: float
    """Largest pixel."""
    finite: bool
    """Whether every pixel is a number."""


def sizes(original: Tensor, changed: Tensor, norm: str, patch: int = 1) -> Tensor:
    """Return the size of each perturbation, `[batch]`, float64: the largest pixel's, a length, or a count of patches.

    `norm` is `linf`, `l2`, `patches` (of `patch` x `patch` pixels) or `none`, where it is 0.

    >>> square = torch.zeros(1, 1, 4, 4)
    >>> moved = square.clone()
    >>> moved[0, 0, 0, :3] = 0.5
    >>> [float(sizes(square, moved, norm, 2)) for norm in ("linf", "patches", "none")]
    [0.5, 2.0, 0.0]
    """
    moved = changed.double() - original.double()
    measures: dict[str, Callable[[], Tensor]] = {
        "linf": lambda: moved.abs().flatten(1).amax(1),
        "l2": lambda: torch.linalg.vector_norm(moved.flatten(1), dim=1),
        "patches": lambda: _touched(moved, patch),
        "none": lambda: torch.zeros(len(moved), dtype=torch.float64),
    }
    return measures[norm]()


def _touched(moved: Tensor, patch: int) -> Tensor:
    tiles = (moved != 0).any(1).unfold(1, patch, patch).unfold(2, patch, patch)
    return tiles.flatten(3).any(3).flatten(1).sum(1).double()


def perturbation(original: Tensor, changed: Tensor, norm: str, patch: int = 1) -> Perturbation:
    """Measure some images in float64; `norm` and `patch` are as in `sizes`."""
    wide = changed.double()
    largest = float(sizes(original, changed, norm, patch).max())
    return Perturbation(largest, float(wide.min()), float(wide.max()), bool(torch.isfinite(wide).all()))


def merged(parts: list[Perturbation]) -> Perturbation:
    """Return the extremes over several batches."""
    return Perturbation(
        max(p.largest for p in parts),
        min(p.lowest for p in parts),
        max(p.highest for p in parts),
        all(p.finite for p in parts),
    )


def fault(found: Perturbation, norm: str, budget: float | None) -> str:
    """Return why the perturbation breaks the law, or an empty string.

    >>> fault(Perturbation(0.5, 0.0, 1.0, True), "linf", 0.25)
    'perturbation of 0.5 (linf) is outside the ball of 0.25'
    """
    if not found.finite:
        return "a pixel is not a number"
    if found.lowest < 0 or found.highest > 1:
        return f"pixels from {found.lowest:.9g} to {found.highest:.9g} leave the box [0, 1]"
    if budget is None or norm == "none":
        return ""
    slack = {"linf": LINF_TOLERANCE, "patches": 0.0}.get(norm, budget * L2_TOLERANCE)
    if found.largest > budget + slack:
        return f"perturbation of {found.largest:.9g} ({norm}) is outside the ball of {budget:.9g}"
    return ""
