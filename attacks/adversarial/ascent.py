"""Steps uphill inside a ball: the strongest point of a walk is kept, or every step is judged for those who ask."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples
from .ball import Ball
from .ladder import Found, Search, where
from .look import Look, View
from .objective import Objective, log_odds

Keep = Literal["first_fooling", "highest", "last"]
"""Which point of a walk is kept; only the first drops samples on the way."""


class Walk(NamedTuple):
    """How an attack moves."""

    ball: Ball
    """Where it may go."""
    steps: int
    """Number of gradient steps."""
    relative_step: float
    """Length of one step over eps."""
    random_start: bool = True
    """Whether a walk starts at a random point of the ball instead of at the clean image."""
    objective: Objective = log_odds
    """What is climbed."""


def walks(walk: Walk, restarts: int) -> list[Search]:
    """Return a search for each restart. Raises ValueError for counts below 1 and steps of no length."""
    if min(walk.steps, restarts) < 1 or walk.relative_step <= 0:
        raise ValueError(
            f"steps and restarts must be at least 1 and relative_step above 0, got steps={walk.steps}, "
            f"restarts={restarts}, relative_step={walk.relative_step}"
        )

    def restarted(restart: int) -> Search:
        def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
            begun = start(samples, eps, draw.at(restart), walk)
            return climb(samples, begun, eps, walk, look, "first_fooling" if look.deterministic else "highest")

        return search

    return [restarted(restart) for restart in range(restarts)]


def start(samples: Samples, eps: float, draw: Draw, walk: Walk) -> Tensor:
    """Return where a walk begins: eps times noise that no eps and no model changes, or the clean image."""
    if not walk.random_start:
        return samples.pixels
    noise = walk.ball.random_start(draw.named("start"), samples.ids, samples.pixels.shape[1:])
    return walk.ball.project(samples.pixels + eps * noise.to(samples.pixels), samples.pixels, eps)


def climb(samples: Samples, begun: Tensor, eps: float, walk: Walk, look: Look, keep: Keep) -> Found:
    """Walk uphill from given points and return the points to keep.

    With `last`, nothing is dropped and the walk ends where its steps lead: what published attacks return.
    """
    kept = Found(
        begun.clone(),
        torch.zeros_like(samples.labels, dtype=torch.bool),
        torch.full_like(samples.labels, -torch.inf, dtype=begun.dtype),
    )
    rows, clean, here = torch.arange(len(samples.ids)), samples, begun
    for step in range(walk.steps + 1):
        if not len(rows):
            break
        view = look(clean._replace(pixels=here), steepest=step < walk.steps, objective=walk.objective)
        chosen = where(_worth_keeping(view, kept, keep, last=step == walk.steps))
        if len(chosen):
            record(kept, rows[chosen], Found(here[chosen], view.fooled[chosen], view.loss[chosen]))
        gradient = view.gradient
        if gradient is None:
            break
        if keep == "first_fooling" and len(chosen):
            going = where(~view.fooled)
            rows, clean, here, gradient = rows[going], clean.rows(going), here[going], gradient[going]
        ahead = walk.ball.normalize(gradient).mul_(walk.relative_step * eps).add_(here)
        here = walk.ball.project(ahead, clean.pixels, eps)
    return kept


def _worth_keeping(view: View, kept: Found, keep: Keep, *, last: bool) -> Tensor:
    """Return which points of a look are to be recorded; where only the highest are kept, no sample has left."""
    if keep == "highest":
        return view.loss > kept.loss
    if last:
        return torch.ones_like(view.fooled)
    return view.fooled if keep == "first_fooling" else torch.zeros_like(view.fooled)


def record(kept: Found, rows: Tensor, new: Found) -> None:
    """Write new points into some rows of those that are kept."""
    kept.pixels[rows], kept.fooled[rows], kept.loss[rows] = new
