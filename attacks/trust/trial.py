"""A model on trial: which walks it is attacked with, each from scratch and to its last step, and who judges them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..adversarial.ascent import Walk, climb, start
from ..adversarial.ball import BALLS
from ..adversarial.ladder import Found, Search, where
from ..adversarial.look import Look, View
from ..adversarial.objective import Objective, log_odds, margin
from ..draw import Draw
from ..samples import JUDGE_PASSES, Samples, Target


class Settings(NamedTuple):
    """How much is spent."""

    steps: int = 20
    """Gradient steps of a walk."""
    relative_step: float = 0.25
    """Length of one step over eps."""
    restarts: int = 3
    """Walks at the reference eps, at least 2."""
    rungs: int = 5
    """Most eps of the ladder that are climbed; the others are left out evenly."""
    queries: int = 1000
    """Squares that the black box tries."""
    draws: int = 500
    """Random perturbations that are tried."""
    directions: int = 3
    """Random directions in which slopes are compared, beside that of the gradient."""
    passes: int = 8
    """Passes over which a stochastic model's gradient is averaged."""
    judge_passes: int = JUDGE_PASSES
    """Fresh passes on which a stochastic model is judged."""


class Trace(NamedTuple):
    """One walk that nothing was dropped from."""

    pixels: Float[Tensor, "batch channel height width"]
    """Where it ended."""
    fooled: Bool[Tensor, " batch"]
    """Whether the model is fooled there: as judged anew where it is stochastic."""
    ever: Bool[Tensor, " batch"]
    """Whether any step fooled a deterministic model; of a stochastic one the same as `fooled`."""
    margins: Float[Tensor, "look batch"]
    """Largest other logit minus the labels' one at each step, the start first: above 0 where the model is fooled."""
    blind: Bool[Tensor, "step batch"]
    """Whether the gradient was exactly 0 at each step."""


class Watch(Look):
    """A look that remembers what it saw."""

    def __init__(self, target: Target, draw: Draw, passes: int) -> None:
        super().__init__(target, draw, passes)
        self.views: list[View] = []
        self.blind: list[Tensor] = []

    def __call__(self, samples: Samples, *, steepest: bool = False, objective: Objective = log_odds) -> View:
        """Look as `Look` does."""
        view = super().__call__(samples, steepest=steepest, objective=objective)
        self.views.append(view._replace(gradient=None))
        if view.gradient is not None:
            self.blind.append(vanished(view.gradient))
        return view


class Trial(NamedTuple):
    """A model, the samples it gets right, and the terms on which it is attacked."""

    target: Target
    """The model."""
    samples: Samples
    """All samples."""
    right: Samples
    """Those that the model gets right; only these are attacked."""
    norm: str
    """`linf` or `l2`."""
    ladder: tuple[float, ...]
    """The eps that are climbed, rising from above 0."""
    draw: Draw
    """The attacker's streams."""
    settings: Settings
    """How much is spent."""

    @property
    def deterministic(self) -> bool:
        """Whether the model says that the same pixels always give the same logits."""
        return self.target.deterministic

    @property
    def passes(self) -> int:
        """Passes of one look."""
        return 1 if self.deterministic else self.settings.passes

    def look(self) -> Look:
        """Return a look whose first pass draws the same noise each time this is called."""
        return Look(self.target, self.draw, self.passes)

    def walk(
        self,
        eps: float,
        *,
        steps: int = 0,
        restart: int = 0,
        single: bool = False,
        source: Target | None = None,
    ) -> Trace:
        """Walk to the last step, dropping nothing; `single` takes one step of size eps from the clean image.

        `steps` of 0 are those of the settings. Gradients come from `source` where it is given, the verdict from the
        model itself.
        """
        settings, ball = self.settings, BALLS[self.norm]
        way = Walk(ball, steps or settings.steps, settings.relative_step)
        if single:
            way = Walk(ball, 1, 1.0, random_start=False)
        seen = source or self.target
        watch = Watch(seen, self.draw, 1 if seen.deterministic else settings.passes)
        begun = start(self.right, eps, self.draw.at(restart), way)
        end = climb(self.right, begun, eps, way, watch, "last").pixels
        steps_fooled = torch.stack([view.fooled for view in watch.views])
        own = source is None and self.deterministic
        fooled = steps_fooled[-1] if own else self.fooled(end)
        return Trace(
            end,
            fooled,
            steps_fooled.any(0) if own else fooled,
            torch.stack([margin(view.logits, self.right.labels) for view in watch.views]),
            torch.stack(watch.blind),
        )

    def searched(self, search: Search, eps: float, among: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Return which of some samples a search fools; the others are not searched."""
        rows, fooled = where(among), torch.zeros_like(among)
        if len(rows):
            some = self.right.rows(rows)
            found: Found = search(some, eps, self.draw, self.look())
            judged = some._replace(pixels=found.pixels)
            passes = self.settings.judge_passes
            fooled[rows] = found.fooled if self.deterministic else wrong(self.target, judged, self.draw, passes)
        return fooled

    def fooled(self, pixels: Float[Tensor, "batch channel height width"]) -> Bool[Tensor, " batch"]:
        """Return whether the model gets right samples wrong at these points: a stochastic one in most fresh passes."""
        return wrong(self.target, self.right._replace(pixels=pixels), self.draw, self.settings.judge_passes)


def trial(
    target: Target, samples: Samples, norm: str, ladder: Sequence[float], draw: Draw, settings: Settings
) -> Trial:
    """Return a trial on the samples that the model gets right."""
    right = samples.rows(where(~wrong(target, samples, draw, settings.judge_passes)))
    return Trial(target, samples, right, norm, thinned(ladder, settings.rungs), draw, settings)


def wrong(target: Target, samples: Samples, draw: Draw, passes: int) -> Bool[Tensor, " batch"]:
    """Return whether a model gets samples wrong: a stochastic one in most of some passes of the judge's."""
    look = Look(target, draw._replace(purpose="judge"))
    seen = [look(samples).fooled for _ in range(1 if target.deterministic else passes)]
    return 2 * torch.stack(seen).sum(0) > len(seen)


def thinned(ladder: Sequence[float], rungs: int) -> tuple[float, ...]:
    """Return at most some eps of a ladder, without 0, spread evenly and with the last.

    >>> thinned([0.0, 1.0, 2.0, 3.0, 4.0], 2)
    (2.0, 4.0)
    """
    rising = [eps for eps in ladder if eps > 0]
    kept = min(rungs, len(rising))
    return tuple(rising[-(-(i + 1) * len(rising) // kept) - 1] for i in range(kept))


def vanished(gradient: Float[Tensor, "batch channel height width"]) -> Bool[Tensor, " batch"]:
    """Return whether each gradient is exactly 0."""
    return (gradient == 0).flatten(1).all(1)
