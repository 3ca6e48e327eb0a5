"""Measures a perturbation anew, in float64: no number is believed because an attack promised to stay inside."""

from typing import NamedTuple

import torch
from torch import Tensor

LINF_TOLERANCE = 2.0**-23
"""Absolute; correct float32 attacks exceed eps by 1 to 2.4e-8."""
L2_TOLERANCE = 1e-6
"""Relative to eps."""


class Perturbation(NamedTuple):
    """How far some inputs were moved, and whether they are still images."""

    largest: float
    """Largest norm of the perturbation; 0 where there is no ball."""
    lowest: float
    """Smallest pixel."""
    highest: float
    """Largest pixel."""
    finite: bool
    """Whether every pixel is a number."""


def perturbation(original: Tensor, changed: Tensor, norm: str) -> Perturbation:
    """Measure in float64; `norm` is `linf`, `l2` or `none`."""
    wide = changed.double()
    moved = (wide - original.double()).flatten(1)
    sizes = {"linf": moved.abs().amax(1), "l2": moved.norm(dim=1)}
    largest = float(sizes[norm].max()) if norm in sizes else 0.0
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
    allowed = budget + LINF_TOLERANCE if norm == "linf" else budget * (1 + L2_TOLERANCE)
    if found.largest > allowed:
        return f"perturbation of {found.largest:.9g} ({norm}) is outside the ball of {budget:.9g}"
    return ""
