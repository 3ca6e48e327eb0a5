"""Auto-PGD: steps uphill that shorten themselves, image by image, where they stop paying off; no step size is chosen.

Croce & Hein 2020, arXiv:2003.01690, algorithm 1. Where the authors' code, `autoattack`, with which published numbers
were made, says more than the paper or something else, this follows the code: a walk starts on the border of the ball,
momentum begins with the second step, condition 1 allows for equality, condition 2 is not asked at the first checkpoint,
and a step gains over the point where the last one led, even if it began at the top instead. It follows the paper in two
places: the first step gains over the start, while the code compares its loss with 0; and checkpoints are rounded up,
while the code rounds down the distances between them, which is the same for whole hundreds of steps.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..draw import Draw
from ..samples import Samples
from .ascent import record
from .ball import BALLS, Ball, length
from .ladder import Found, Search, where
from .look import Look, View
from .objective import Objective

Aimed = Callable[[Tensor], Objective]
"""Called with the indices of the samples that are left, returns what these climb: their aims are not the others'."""

FIRST_STEP = 2.0
"""Length of the first step over eps."""
NEW = 0.75
"""Weight of the new step; the rest is momentum."""
RHO = 0.75
"""Share of steps that must rise for the step size to stay."""

Pixels = Float[Tensor, "batch channel height width"]
Values = Float[Tensor, " batch"]


class Walkers(NamedTuple):
    """Where the samples that are left stand and what each remembers; every field has one row a sample."""

    rows: Int[Tensor, " batch"]
    """Indices among all samples."""
    here: Pixels
    """Where the next step begins."""
    before: Pixels
    """Where the last step began."""
    value: Values
    """Of the objective where the last step led."""
    slope: Pixels
    """Gradient `here`."""
    stride: Float[Tensor, "batch 1 1 1"]
    """Length of the next step."""
    top: Pixels
    """The highest point so far."""
    top_value: Values
    """Its value."""
    top_slope: Pixels
    """Its gradient."""
    rises: Int[Tensor, " batch"]
    """How many steps since the last checkpoint have risen."""
    checked_value: Values
    """`top_value` at the last checkpoint."""
    halved: Bool[Tensor, " batch"]
    """Whether the stride was halved at the last checkpoint."""

    def left(self, going: Int[Tensor, " going"]) -> "Walkers":
        """Return some of the samples."""
        return self if len(going) == len(self.rows) else Walkers(*(field[going] for field in self))


def apgd_searches(norm: str, steps: int, restarts: int, objective: Objective, stream: str = "ce") -> list[Search]:
    """Return an untargeted search for each restart; `stream` names the noise of their starts.

    Raises ValueError for an unknown norm and for counts below 1.
    """
    check_counts(norm, steps=steps, restarts=restarts)

    def restarted(restart: int) -> Search:
        def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
            begun = border(samples, eps, draw.named(f"start.{stream}").at(restart), norm)
            return ascend(samples, begun, eps, BALLS[norm], steps, lambda rows: objective, look)

        return search

    return [restarted(restart) for restart in range(restarts)]


def apgd_targeted_searches(
    norm: str, steps: int, restarts: int, targets: int, towards: Callable[[Tensor], Objective]
) -> list[Search]:
    """Return one search that walks towards the likeliest other classes of the clean image, one class after another.

    `towards` makes an objective from one aim a sample. Where the model has fewer other classes than `targets`, all of
    them are aims. Raises ValueError for an unknown norm and for counts below 1.
    """
    check_counts(norm, steps=steps, restarts=restarts, targets=targets)

    def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
        aims = rivals(look(samples).logits, samples.labels, targets)
        kept, rows = untried(samples.pixels), torch.arange(len(samples.ids))
        for rank, restart in ((a, b) for a in range(aims.shape[1]) for b in range(restarts)):
            if not len(rows):
                break
            part, aim = samples.rows(rows), aims[rows, rank]
            begun = border(part, eps, draw.named(f"start.t{rank}").at(restart), norm)
            found = ascend(part, begun, eps, BALLS[norm], steps, aimed_at(aim, towards), look)
            keep(kept, rows, found, look)
            rows = rows[where(~found.fooled)] if look.deterministic else rows
        return kept

    return [search]


def check_counts(norm: str, **counts: int) -> None:
    """Refuse an unknown norm and counts below 1. Raises ValueError."""
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for APGD; choose from {', '.join(BALLS)}")
    if min(counts.values()) < 1:
        given = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise ValueError(f"{' and '.join(counts)} must be at least 1, got {given}")


def aimed_at(aims: Int[Tensor, " batch"], towards: Callable[[Tensor], Objective]) -> Aimed:
    """Return what the samples climb that are left, from one aim a sample."""
    return lambda left: towards(aims[left])


def rivals(logits: Float[Tensor, "batch class"], labels: Int[Tensor, " batch"], targets: int) -> Int[Tensor, "batch _"]:
    """Return the classes other than the label, likeliest first, at most `targets` of them.

    >>> rivals(torch.tensor([[0.1, 0.5, 0.2, 0.4]]), torch.tensor([3]), 2).tolist()
    [[1, 2]]
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.sort(dim=1, descending=True, stable=True).indices[:, : min(targets, logits.shape[1] - 1)]


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is judged: the ceilings of p_j times the number of steps.

    p_0 = 0, p_1 = .22, p_j+1 = p_j + max(p_j - p_j-1 - .03, .06), counted here in whole hundredths.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    places = [0, 22]
    while places[-1] <= 100:
        places.append(places[-1] + max(places[-1] - places[-2] - 3, 6))
    return sorted({-(-place * steps // 100) for place in places[1:-1]})


def border(samples: Samples, eps: float, draw: Draw, norm: str) -> Pixels:
    """Return a random point at distance eps from each image, moved into the box; the noise depends on no eps.

    L-inf: uniform numbers over the largest of them; L2: a normal direction.
    """
    shape = samples.pixels.shape[1:]
    if norm == "linf":
        noise = 2 * draw.uniform(samples.ids, shape) - 1
        noise = noise / noise.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(noise.dtype).tiny)
    else:
        noise = draw.normal(samples.ids, shape)
        noise = noise / length(noise)
    return BALLS[norm].project(samples.pixels + eps * noise.to(samples.pixels), samples.pixels, eps)


def ascend(samples: Samples, begun: Pixels, eps: float, ball: Ball, steps: int, aimed: Aimed, look: Look) -> Found:
    """Walk uphill from given points and return those that fool, else the ones with the highest loss.

    Against a deterministic model a sample leaves as soon as it is fooled; against a stochastic one all walk to the end
    and only the loss decides.
    """
    spans = {end: end - begin for begin, end in pairwise([0, *checkpoints(steps)])}
    kept = untried(begun)
    rows = torch.arange(len(samples.ids))
    view = look(samples._replace(pixels=begun), steepest=True, objective=aimed(rows))
    keep(kept, rows, Found(begun, view.fooled, view.loss), look)
    walkers = departed(rows, begun, view, eps)
    for step in range(1, steps + 1):
        if look.deterministic:
            walkers = walkers.left(where(~kept.fooled[walkers.rows]))
        if not len(walkers.rows):
            break
        clean = samples.rows(walkers.rows)
        there = stepped(walkers, clean.pixels, eps, ball, NEW if step > 1 else 1.0)
        view = look(clean._replace(pixels=there), steepest=step < steps, objective=aimed(walkers.rows))
        keep(kept, walkers.rows, Found(there, view.fooled, view.loss), look)
        walkers = arrived(walkers, there, view)
        if step in spans:
            walkers = checked(walkers, spans[step])
    return kept


def departed(rows: Int[Tensor, " batch"], begun: Pixels, view: View, eps: float) -> Walkers:
    """Return the walkers before their first step."""
    slope = torch.zeros_like(begun) if view.gradient is None else view.gradient
    return Walkers(
        rows=rows,
        here=begun,
        before=begun,
        value=view.value,
        slope=slope,
        stride=torch.full_like(begun[:, :1, :1, :1], FIRST_STEP * eps),
        top=begun,
        top_value=view.value,
        top_slope=slope,
        rises=torch.zeros_like(view.fooled, dtype=torch.long),
        checked_value=view.value,
        halved=torch.ones_like(view.fooled),
    )


def stepped(walkers: Walkers, clean: Pixels, eps: float, ball: Ball, new: float) -> Pixels:
    """Return where the next step leads: towards the steepest point of the ball, bent by the step before."""
    here = walkers.here
    steepest = ball.project(here + walkers.stride * ball.normalize(walkers.slope), clean, eps)
    bent = here + new * (steepest - here) + (1 - new) * (here - walkers.before)
    return ball.project(bent, clean, eps)


def arrived(walkers: Walkers, there: Pixels, view: View) -> Walkers:
    """Return the walkers after a step."""
    slope = walkers.slope if view.gradient is None else view.gradient
    higher = view.value > walkers.top_value
    wide = higher[:, None, None, None]
    return walkers._replace(
        here=there,
        before=walkers.here,
        value=view.value,
        slope=slope,
        top=torch.where(wide, there, walkers.top),
        top_value=torch.where(higher, view.value, walkers.top_value),
        top_slope=torch.where(wide, slope, walkers.top_slope),
        rises=walkers.rises + (view.value > walkers.value).long(),
    )


def checked(walkers: Walkers, span: int) -> Walkers:
    """Return the walkers after a checkpoint, `span` steps after the one before.

    Condition 1: at most a share rho of the steps has risen. Condition 2: neither the step size nor the highest value
    has changed since the checkpoint before. Where one holds, the step is halved and the walk goes on from its top.
    """
    idle = ~walkers.halved & (walkers.checked_value >= walkers.top_value)
    halved = (walkers.rises <= RHO * span) | idle
    wide = halved[:, None, None, None]
    return walkers._replace(
        here=torch.where(wide, walkers.top, walkers.here),
        slope=torch.where(wide, walkers.top_slope, walkers.slope),
        stride=torch.where(wide, walkers.stride / 2, walkers.stride),
        rises=torch.zeros_like(walkers.rises),
        checked_value=walkers.top_value,
        halved=halved,
    )


def untried(pixels: Pixels) -> Found:
    """Return a record of nothing tried yet."""
    lowest = torch.full_like(pixels[:, 0, 0, 0], -torch.inf)
    return Found(pixels.clone(), torch.zeros_like(lowest, dtype=torch.bool), lowest)


def keep(kept: Found, rows: Int[Tensor, " batch"], tried: Found, look: Look) -> None:
    """Write into some rows of what is kept the points that fool a deterministic model, or have a higher loss."""
    better = tried.loss > kept.loss[rows]
    if look.deterministic:
        better |= tried.fooled
    record(kept, rows[where(better)], Found(*(part[better] for part in tried)))
