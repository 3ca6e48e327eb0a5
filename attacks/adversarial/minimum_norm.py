"""The smallest perturbation that fools a model: tried points are kept by their size, and one run fills every rung.

Other attacks are given eps and ask whether a sample falls within it; these ask at which eps it falls. They run once,
whatever the severities are, and a rung shows the smallest fooling point where it lies inside the ball.

A model is held to be fooled where its logits, for a stochastic model their mean over several fresh passes, put another
class above the true one; a point is kept where it is clearly above. Chance makes a stochastic model's smallest point
too good: it lies where every other pass is right. So there a rung shows, of all tried points inside its ball and of the
smallest fooling perturbation stretched to its full size, the one with the highest mean loss, for others to judge on
fresh passes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..draw import Draw
from ..guard import admitted
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from .ascent import record
from .ball import BALLS, ROUNDING, shortened
from .hyperplane import Border
from .ladder import Found, Search, given, ladder_of, where
from .look import Look, View
from .objective import Objective, margin

Pixels = Float[Tensor, "batch channel height width"]
Sizes = Float[Tensor, " batch"]
Rows = Int[Tensor, " row"]

REACH = {"linf": 0.3, "l2": 1.0}
"""Size of the ball where no fooling point is known yet, for random starts: what the authors' code of FAB takes."""

CLEAR = 1e-5
"""Share of the logits' spread by which another class must lead; less may be lost to rounding in a batch of another
shape."""
BISECTIONS = 16
"""Looks at the way from the clean image to the smallest fooling point: they place the border to 2^-16 of its length."""


class Smallest(NamedTuple):
    """What a search for the smallest perturbation found."""

    pixels: Pixels
    """The closest fooling points; the clean images where none was found."""
    norms: Sizes
    """Their distances from the clean images, float64; 0 where those fool already, infinite where none was found."""
    found: Bool[Tensor, " batch"]
    """Whether one was found."""


class Sighting(NamedTuple):
    """One look at some rows of a trail."""

    view: View
    """What the model showed."""
    fooled: Bool[Tensor, " row"]
    """Whether the (mean) logits put another class first."""
    norms: Float[Tensor, " row"]
    """How far the points are from the clean images, float64."""


class Trail:
    """Every point that was looked at, as far as it is worth keeping: one row a sample, none of which changes another.

    `balls` are the sizes within which a stochastic model's most harmful points are kept; a deterministic model's
    samples are done with as soon as they fool within `enough`.
    """

    def __init__(
        self, samples: Samples, look: Look, norm: str, *, balls: Sequence[float], reach: float, enough: float
    ) -> None:
        self.samples = samples
        self.norm = norm
        self.pixels = samples.pixels.clone()
        self.norms = torch.full((len(samples.ids),), torch.inf, dtype=torch.float64, device=samples.pixels.device)
        self._bisected = self.norms.clone()
        self._look = look
        self._reach, self._enough = reach, enough
        self._strongest = {} if look.deterministic else {eps: _nothing(samples) for eps in balls}

    def standing(self) -> Rows:
        """Return the rows to go on with."""
        everyone = torch.ones_like(self.norms, dtype=torch.bool)
        return where(self.norms > self._enough if self._look.deterministic else everyone)

    def look(self, rows: Rows, points: Pixels) -> Sighting:
        """Look at one point for each of some rows, and keep what is smaller or stronger than what was known."""
        return self._kept(rows, points, self._look(self.samples.rows(rows)._replace(pixels=points)))

    def border(self, rows: Rows, points: Pixels, objective: Objective) -> tuple[Sighting, Border]:
        """Look at points and at the borders that they see; the objective is a difference of two logits."""
        view = self._look(self.samples.rows(rows)._replace(pixels=points), steepest=True, objective=objective)
        slope = torch.zeros_like(points) if view.gradient is None else view.gradient
        return self._kept(rows, points, view), Border(view.value, slope)

    def _kept(self, rows: Rows, points: Pixels, view: View) -> Sighting:
        clean = self.samples.rows(rows)
        seen = Sighting(view, view.logits.argmax(1) != clean.labels, size(points, clean.pixels, self.norm))
        spread = view.logits.amax(1) - view.logits.amin(1)
        clear = margin(view.logits, clean.labels) > CLEAR * spread
        smaller = clear & (seen.norms < self.norms[rows])
        self.pixels[rows[where(smaller)]] = points[smaller]
        self.norms[rows[where(smaller)]] = seen.norms[smaller]
        for eps, best in self._strongest.items():
            higher = inside(seen.norms, eps, self.norm) & (view.loss > best.loss[rows])
            record(best, rows[where(higher)], Found(points[higher], seen.fooled[higher], view.loss[higher]))
        return seen

    def start(self, draw: Draw, restart: int) -> Pixels:
        """Return where a search begins: the clean images, or at a restart points of half the ball known so far."""
        clean, ids = self.samples.pixels, self.samples.ids
        if not restart:
            return clean.clone()
        noise = BALLS[self.norm].random_start(draw.at(restart), ids, clean.shape[1:])
        radius = self.norms.clamp(max=self._reach).to(clean)[:, None, None, None] / 2
        return (clean + radius * noise.to(clean)).clamp(0, 1)

    def bisect(self) -> None:
        """Look for the border on the way from the clean images to fooling points that are new since the last time."""
        rows = where((self.norms > 0) & (self.norms < self._bisected))
        far, high = self.pixels[rows], self.norms[rows]
        low = torch.zeros_like(high)
        for _ in range(BISECTIONS if len(rows) else 0):
            middle = (low + high) / 2
            fooled = self.look(rows, shrunk(far, self.samples.pixels[rows], middle, self.norm)).fooled
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        self._bisected = self.norms.clone()

    def within(self, eps: float) -> Found:
        """Return a point in the ball of size eps for each sample, one that fools where any is known.

        The smallest fooling perturbations are moved into the ball and looked at once more; a stochastic model's are
        stretched to its full size as well, and the most harmful point of all is returned.
        """
        clean = self.samples.pixels
        outside = ~inside(self.norms, eps, self.norm)
        stretch = (eps / self.norms.clamp_min(ROUNDING)).clamp_min(1).to(clean)[:, None, None, None]
        far = self.pixels if self._look.deterministic else (clean + (self.pixels - clean) * stretch).clamp(0, 1)
        points = shrunk(far, clean, torch.full_like(self.norms, eps), self.norm)
        rows = where((outside | (not self._look.deterministic)) & (eps > 0))
        loss = torch.full_like(clean[:, 0, 0, 0], torch.inf)
        if len(rows):
            loss[rows] = self.look(rows, points[rows]).view.loss
        if self._strongest:
            return self._strongest[eps]
        fooled = inside(self.norms, eps, self.norm)
        return Found(torch.where(fooled[:, None, None, None], self.pixels, points), fooled, loss)


Approach = Callable[[Trail, Draw], None]
"""Looks, along a trail, for the smallest points that fool; called with the attack's draw."""


def _nothing(samples: Samples) -> Found:
    lowest = torch.full_like(samples.pixels[:, 0, 0, 0], -torch.inf)
    return Found(samples.pixels.clone(), torch.zeros_like(samples.labels, dtype=torch.bool), lowest)


def size(points: Pixels, clean: Pixels, norm: str) -> Sizes:
    """Return the size of each perturbation, in float64."""
    delta = (points.double() - clean.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else ordered_sum(delta**2).sqrt()


def inside(norms: Sizes, eps: float, norm: str) -> Bool[Tensor, " batch"]:
    """Return whether perturbations of float32 images count as within eps: rounding may lengthen them a little."""
    return norms <= (eps + ROUNDING if norm == "linf" else eps * (1 + 1e-6))


def shrunk(points: Pixels, clean: Pixels, sizes: Sizes, norm: str) -> Pixels:
    """Return the points moved towards the clean images until none is farther away than its size.

    L-inf cuts the pixels that go too far and leaves the others; L2 shortens the whole perturbation.
    """
    delta = points - clean
    if norm == "linf":
        limit = sizes.to(points)[:, None, None, None]
        return clean + delta.clamp(-limit, limit)
    return shortened(delta, clean, sizes)


def check_counts(name: str, norm: str, **counts: int) -> None:
    """Refuse an unknown norm and counts below 1. Raises ValueError."""
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for {name}; choose from {', '.join(BALLS)}")
    if min(counts.values()) < 1:
        given = ", ".join(f"{what}={count}" for what, count in counts.items())
        raise ValueError(f"{' and '.join(counts)} must be at least 1, got {given}")


def as_search(approach: Approach, norm: str) -> Search:
    """Return the approach as a search within a given eps, which is done with a sample as soon as it falls there."""

    def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
        trail = Trail(samples, look, norm, balls=(eps,), reach=eps, enough=eps)
        approach(trail, draw)
        return trail.within(eps)

    return search


def smallest(
    samples: Samples, draw: Draw, target: Target, approaches: Sequence[Approach], norm: str, passes: int
) -> Smallest:
    """Return the smallest perturbations that any of some approaches found, whatever their size.

    `passes` is for stochastic models. Raises ValueError for samples that are no images; what the model raises, and
    ArithmeticError if its logits are not finite.
    """
    with torch.inference_mode(False):
        trail = _followed(admitted(samples), (), draw, target, approaches, norm, passes)
    return Smallest(trail.pixels, trail.norms, trail.norms.isfinite())


def minimum_norm_rungs(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    approaches: Sequence[Approach],
    norm: str,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return one batch for each eps, in float32, from one search that knows none of them.

    Where the smallest fooling perturbation is larger than eps, the same perturbation is moved into the ball; where
    there is none, the image comes back unchanged. Severities must rise. Raises ValueError where they do not, for an
    unknown norm, for counts below 1, without a target and for samples that are no images; what the model raises, and
    ArithmeticError if its logits or gradients are not finite.
    """
    ladder = ladder_of(severities)
    target = given(target, passes)
    wide = admitted(samples)
    with torch.inference_mode(False):
        trail = _followed(wide, ladder, draw, target, approaches, norm, passes)
        return tuple(trail.within(eps).pixels.clone() for eps in ladder)


def _followed(
    samples: Samples,
    ladder: Sequence[float],
    draw: Draw,
    target: Target,
    approaches: Sequence[Approach],
    norm: str,
    passes: int,
) -> Trail:
    look = Look(target, draw, 1 if target.deterministic else passes)
    trail = Trail(samples, look, norm, balls=ladder, reach=REACH[norm], enough=0.0)
    trail.look(torch.arange(len(samples.ids)), samples.pixels)
    for approach in approaches:
        approach(trail, draw)
        trail.bisect()
    return trail
