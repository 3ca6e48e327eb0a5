"""The strongest of an attack's points is kept: the first that fools a model, or the most harmful to a noisy one.

A deterministic model is fooled by a sample if any point inside the ball fools it, so the clean image, every start and
every step are judged, a fooled sample leaves the search at once, and what fooled it at one eps is kept at every larger
one: the balls are nested, the labels are true and the box is the same. A stochastic model errs by chance, and the
more points are judged the more often: there every eps is searched from scratch to the end, and the point with the
highest mean loss over several passes is kept, for others to judge on fresh ones.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import severity_value
from .ball import Ball

SMALLEST_BATCH = 8
"""One to three rows take another path through matrix products and change the last bits."""

Keep = Literal["first_fooling", "highest_loss", "last"]
"""Which point of a walk is kept; only the first drops samples on the way."""


class Walk(NamedTuple):
    """How an attack moves."""

    ball: Ball
    """Where it may go."""
    steps: int
    """Number of gradient steps."""
    relative_step: float
    """Length of one step over eps."""
    restarts: int = 1
    """Number of walks."""
    random_start: bool = True
    """Whether a walk starts at a random point of the ball instead of at the clean image."""


class View(NamedTuple):
    """What an attack learns about some images from one look at the model."""

    loss: Float[Tensor, " batch"]
    """Cross-entropy of the true class, the mean over the passes."""
    fooled: Bool[Tensor, " batch"]
    """Whether another class has the largest logit, on the first pass."""
    gradient: Float[Tensor, "batch channel height width"] | None
    """Of the loss in the pixels; None where it was not asked for."""


class Climb(NamedTuple):
    """Where a walk ended."""

    pixels: Float[Tensor, "batch channel height width"]
    """The kept points."""
    loss: Float[Tensor, " batch"]
    """Their loss."""
    fooled: Bool[Tensor, " batch"]
    """Whether they fooled the model."""


Look = Callable[[Samples, bool], View]
"""Called with images, and whether their gradient is wanted."""


def strongest(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None, walk: Walk, passes: int
) -> tuple[Tensor, ...]:
    """Return one batch for each eps: points that fool the model where any was found, else the last one tried.

    Severities must rise. Raises ValueError where they do not, for counts below 1, and without a target; ArithmeticError
    if the model's logits are not finite.
    """
    ladder = [severity_value(text) for text in severities]
    check(ladder, walk, passes)
    if target is None:
        raise ValueError("an adversarial attack needs the model that it attacks; pass it as target")
    if not samples.ids:
        raise ValueError("an attack needs at least one sample, got none")
    if target.deterministic:
        return _carried(samples, ladder, draw, target, walk)
    return tuple(_most_harmful(samples, eps, draw, target, walk, passes) for eps in ladder)


def check(ladder: Sequence[float], walk: Walk, passes: int) -> None:
    """Refuse a ladder that does not rise and counts that mean nothing."""
    if any(eps < 0 for eps in ladder) or any(low >= high for low, high in pairwise(ladder)):
        raise ValueError(f"severities must be at least 0 and rise from one to the next, got {list(ladder)}; sort them")
    if min(walk.steps, walk.restarts, passes) < 1 or walk.relative_step <= 0:
        raise ValueError(
            f"steps, restarts and passes must be at least 1 and relative_step above 0, got steps={walk.steps}, "
            f"restarts={walk.restarts}, passes={passes}, relative_step={walk.relative_step}"
        )


def _carried(samples: Samples, ladder: Sequence[float], draw: Draw, target: Target, walk: Walk) -> tuple[Tensor, ...]:
    look = look_at(target, draw, passes=1)
    pixels = samples.pixels.clone()
    unfooled = _where(~look(samples, False).fooled)
    batches = []
    for eps in ladder:
        for restart in range(walk.restarts):
            some = samples.rows(unfooled)
            climbed = climb(some, start(some, eps, draw.at(restart), walk), eps, walk, look, "first_fooling")
            pixels[unfooled] = climbed.pixels
            unfooled = unfooled[_where(~climbed.fooled)]
        batches.append(pixels.clone())
    return tuple(batches)


def _most_harmful(
    samples: Samples, eps: float, draw: Draw, target: Target, walk: Walk, passes: int
) -> Float[Tensor, "batch channel height width"]:
    look = look_at(target, draw, passes)
    best, highest = samples.pixels, torch.full_like(samples.labels, -torch.inf, dtype=samples.pixels.dtype)
    for restart in range(walk.restarts):
        begun = start(samples, eps, draw.at(restart), walk)
        climbed = climb(samples, begun, eps, walk, look, "highest_loss")
        higher = climbed.loss > highest
        best = torch.where(higher[:, None, None, None], climbed.pixels, best)
        highest = torch.where(higher, climbed.loss, highest)
    return best


def start(samples: Samples, eps: float, draw: Draw, walk: Walk) -> Float[Tensor, "batch channel height width"]:
    """Return where a walk begins: eps times noise that no eps and no model changes, or the clean image."""
    if not walk.random_start:
        return samples.pixels
    noise = walk.ball.random_start(draw.named("start"), samples.ids, samples.pixels.shape[1:])
    return walk.ball.project(samples.pixels + eps * noise.to(samples.pixels), samples.pixels, eps)


def climb(samples: Samples, begun: Tensor, eps: float, walk: Walk, look: Look, keep: Keep) -> Climb:
    """Walk uphill from given points and return the points to keep.

    With `last`, nothing is dropped and the walk ends where its steps lead: what published attacks return.
    """
    kept = Climb(
        begun.clone(),
        torch.full_like(samples.labels, -torch.inf, dtype=begun.dtype),
        torch.zeros_like(samples.labels, dtype=torch.bool),
    )
    rows, here = torch.arange(len(samples.ids)), begun
    for step in range(walk.steps + 1):
        if not len(rows):
            break
        clean = samples.rows(rows)
        view = look(clean._replace(pixels=here), step < walk.steps)
        better = view.loss > kept.loss[rows] if keep == "highest_loss" else torch.ones_like(view.fooled)
        _record(kept, rows[_where(better)], here[better], view.loss[better], view.fooled[better])
        if view.gradient is None:
            break
        going = _where(~view.fooled) if keep == "first_fooling" else torch.arange(len(rows))
        rows, origin = rows[going], clean.pixels[going]
        here = here[going] + walk.relative_step * eps * walk.ball.normalize(view.gradient[going])
        here = walk.ball.project(here, origin, eps)
    return kept


def look_at(target: Target, draw: Draw, passes: int) -> Look:
    """Return a look at the model; each pass takes the next of its own streams, and small batches are filled up.

    The losses are summed, never averaged, so that no sample changes another one's gradient.
    """
    model = draw.named("model")
    taken = 0

    def look(samples: Samples, steepest: bool) -> View:
        nonlocal taken
        count = len(samples.ids)
        filled = samples.rows([*range(count), *[0] * (SMALLEST_BATCH - count)]) if count < SMALLEST_BATCH else samples
        views = [_single_pass(filled, steepest, target, model.at(taken + i)) for i in range(passes)]
        taken += passes
        loss = torch.stack([view.loss for view in views]).mean(0)
        gradients = [view.gradient for view in views if view.gradient is not None]
        gradient = torch.stack(gradients).mean(0)[:count] if steepest else None
        return View(loss[:count], views[0].fooled[:count], gradient)

    return look


def _single_pass(samples: Samples, steepest: bool, target: Target, draw: Draw) -> View:
    with torch.set_grad_enabled(steepest):
        pixels = samples.pixels.detach().clone().requires_grad_(steepest)
        logits = target(pixels, samples.ids, draw)
        loss = F.cross_entropy(logits, samples.labels, reduction="none")
        gradient = torch.autograd.grad(loss.sum(), pixels)[0] if steepest else None
    if not logits.isfinite().all():
        raise ArithmeticError("the attacked model's logits are not finite")
    return View(loss.detach(), logits.argmax(1) != samples.labels, gradient)


def _record(kept: Climb, rows: Tensor, pixels: Tensor, loss: Tensor, fooled: Tensor) -> None:
    kept.pixels[rows], kept.loss[rows], kept.fooled[rows] = pixels, loss, fooled


def _where(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0].cpu()
