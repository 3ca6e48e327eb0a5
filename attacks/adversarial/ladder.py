"""One search after another at one eps after another, and what is known already is never searched again.

A deterministic model is fooled by a sample if any point inside the ball fools it. So a sample that the model gets wrong
is left alone, one that is fooled leaves the search at once, and what fooled it at one eps is kept at every larger one:
the balls are nested, the labels are true and the box is the same. A stochastic model errs by chance, and the more
points are judged the more often: there every eps is searched from scratch, to the end and by every search, and the
point with the highest mean loss over several passes is kept, for others to judge on fresh ones.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..draw import Draw
from ..guard import admitted
from ..samples import Samples, Target
from ..shift import severity_value
from .look import Look


class Found(NamedTuple):
    """What one search brought back."""

    pixels: Float[Tensor, "batch channel height width"]
    """Points inside the ball: one that fools where any was found, else any one that was tried."""
    fooled: Bool[Tensor, " batch"]
    """Whether the model was seen to be fooled there."""
    loss: Float[Tensor, " batch"]
    """As in `View`: decides between points of a stochastic model."""


Search = Callable[[Samples, float, Draw, Look], Found]
"""Looks for points that fool a model within eps, from scratch; no sample was fooled as it came.

Called with the samples, eps, the attack's draw and a look at the model. Against a deterministic model it may stop with
a sample as soon as it is fooled; against a stochastic one it returns, of the points that it tried, the one with the
highest loss.
"""


def laddered(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    searches: Sequence[Search],
    passes: int,
) -> tuple[Tensor, ...]:
    """Return one batch for each eps, in float32: points that fool the model where any was found, else the last tried.

    The searches run in turn, each over those that the ones before left standing; at eps 0, whose ball holds the clean
    image alone, none runs. Everything is computed in float32, whatever the type of the pixels and the gradient mode of
    the caller. Severities must rise. Raises ValueError where they do not, for counts below 1, without a target and for
    samples that are no images; what the model raises, and ArithmeticError if its logits or gradients are not finite.
    """
    ladder = ladder_of(severities)
    target = given(target, passes)
    wide = admitted(samples)
    with torch.inference_mode(False):
        if target.deterministic:
            return _carried(wide, ladder, draw, target, searches)
        return tuple(_most_harmful(wide, eps, draw, target, searches, passes) for eps in ladder)


def ladder_of(severities: Sequence[str]) -> list[float]:
    """Read severities that rise from 0. Raises ValueError for others."""
    if isinstance(severities, str):
        raise ValueError(f"severities are several texts, as in ('{severities}',), got one alone: '{severities}'")
    ladder = [severity_value(text) for text in severities]
    check_ladder(ladder)
    return ladder


def given(target: Target | None, passes: int) -> Target:
    """Return the target that an attack was given. Raises ValueError for none, for a bare module and passes below 1."""
    if passes < 1:
        raise ValueError(f"passes must be at least 1, got {passes}")
    if target is None:
        raise ValueError("an adversarial attack needs the model that it attacks; pass it as target")
    if not hasattr(target, "deterministic"):
        raise ValueError(
            f"a target says whether it is deterministic, and this {type(target).__name__} does not; wrap a module as "
            "attnbench.attacks.target.ModuleTarget(module)"
        )
    return target


def check_ladder(ladder: Sequence[float]) -> None:
    """Refuse a ladder that does not rise from 0."""
    if any(eps < 0 for eps in ladder) or any(low >= high for low, high in pairwise(ladder)):
        raise ValueError(f"severities must be at least 0 and rise from one to the next, got {list(ladder)}; sort them")


def _carried(
    samples: Samples, ladder: Sequence[float], draw: Draw, target: Target, searches: Sequence[Search]
) -> tuple[Tensor, ...]:
    look = Look(target, draw)
    pixels = samples.pixels.clone()
    standing = where(~look(samples).fooled)
    batches = []
    for eps in ladder:
        for search in searches:
            if eps == 0 or not len(standing):
                break
            found = search(samples.rows(standing), eps, draw, look)
            pixels[standing] = found.pixels
            standing = standing[where(~found.fooled)]
        batches.append(pixels.clone())
    return tuple(batches)


def _most_harmful(
    samples: Samples, eps: float, draw: Draw, target: Target, searches: Sequence[Search], passes: int
) -> Float[Tensor, "batch channel height width"]:
    if eps == 0:
        return samples.pixels
    look = Look(target, draw, passes)
    best, highest = samples.pixels, torch.full_like(samples.labels, -torch.inf, dtype=samples.pixels.dtype)
    for search in searches:
        found = search(samples, eps, draw, look)
        higher = found.loss > highest
        best = torch.where(higher[:, None, None, None], found.pixels, best)
        highest = torch.where(higher, found.loss, highest)
    return best


def where(mask: Bool[Tensor, " batch"]) -> Tensor:
    """Return the indices of what is true, where samples are indexed."""
    return mask.nonzero()[:, 0].cpu()
