"""Lets a shift act on a model: on the model as it is and, where it cuts gradients, on its twin that cuts none.

An attack that sees only some paths may fail where one that sees them all succeeds, and the other way round; the worst
of both counts. The twin computes the same function, so what was found on it is judged on the model like everything
else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks.adversarial.objective import log_mean_cross_entropy, log_odds
from ..attacks.draw import Draw
from ..attacks.glass import Steered
from ..attacks.samples import Samples, Target
from ..attacks.shift import Shift
from ..models.network import Tap
from .ball import sizes
from .catalog import Entry
from .target import ModelTarget

CHOICE_PASSES = 16
"""Passes on which the more harmful of two points of a stochastic model is chosen; the judge's are others."""

Point = Tensor | Steered
"""What a shift returns for a severity: pixels, or what to add between the layers."""


class Shifted(NamedTuple):
    """What a shift made of some samples."""

    rungs: tuple[Point, ...]
    """One for each severity."""
    from_open: tuple[int, ...]
    """How many samples' points come from the twin with open gradients, for each severity."""


class Shadow:
    """A model with a stand-in that is attacked in its place."""

    def __init__(self, victim: ModelTarget, surrogate: Target) -> None:
        self.victim = victim
        self.surrogate = surrogate
        self.deterministic = victim.deterministic

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return the model's logits."""
        return self.victim(pixels, ids, draw)


class Ensemble:
    """Several models that answer with one voice."""

    def __init__(self, members: Sequence[ModelTarget]) -> None:
        self.members = tuple(members)
        self.deterministic = all(member.deterministic for member in members)

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return the mean of the members' logits, each one's standard deviation over classes made 1 first."""
        if len(self.members) == 1:
            return self.members[0](pixels, ids, draw)
        voices = [member(pixels, ids, draw.named(f"{draw.name}.{i}")) for i, member in enumerate(self.members)]
        return torch.stack([v / v.std(1, keepdim=True).clamp_min(1e-12) for v in voices]).mean(0)


def shifted(
    shift: Entry[Shift],
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: ModelTarget,
    surrogate: Target | None = None,
) -> Shifted:
    """Apply a shift at every severity; raises whatever the shift or the model raises."""
    apply, settings = shift.value.apply, shift.settings
    if shift.value.knowledge == "transfer" and surrogate is not None:
        found = apply(samples, tuple(severities), draw, Shadow(target, surrogate), **settings)
        return Shifted(tuple(found), (0,) * len(severities))
    found = apply(samples, tuple(severities), draw, target, **settings)
    if target.opened is None or shift.value.knowledge != "white_box" or shift.value.convention:
        return Shifted(tuple(found), (0,) * len(severities))
    other = apply(samples, tuple(severities), draw, target.opened, **settings)
    choice = draw._replace(purpose="choice")
    norm = str(settings.get("norm", shift.value.norm)) if shift.value.minimum_norm else ""
    chosen = [_worse(target, samples, a, b, choice, norm) for a, b in zip(found, other, strict=True)]
    return Shifted(tuple(point for point, _ in chosen), tuple(count for _, count in chosen))


def answer(target: ModelTarget, point: Point, ids: Sequence[str], draw: Draw, tap: Tap | None = None) -> Tensor:
    """Return the logits at a point."""
    if isinstance(point, Steered):
        return target.steered(point.pixels, ids, draw, point.layer, point.delta, tap)
    return target(point, ids, draw, tap)


def _worse(target: ModelTarget, samples: Samples, own: Point, other: Point, draw: Draw, norm: str) -> tuple[Point, int]:
    """Return, sample by sample, the point from the twin where it alone fools, or harms a stochastic model more.

    Where the smallest perturbation is looked for, in a `norm`, the smaller of two that fool is the worse.
    """
    if target.deterministic:
        fooled = [_logits(target, point, samples, draw).argmax(1) != samples.labels for point in (own, other)]
        better = fooled[1] & ~fooled[0]
        if norm and isinstance(own, Tensor) and isinstance(other, Tensor):
            lengths = [sizes(samples.pixels, point, norm) for point in (own, other)]
            better |= fooled[1] & (lengths[1] < lengths[0])
    else:
        harm = [_harm(target, point, samples, draw) for point in (own, other)]
        better = harm[1] > harm[0]
    return _where(better, other, own), int(better.sum())


def _logits(target: ModelTarget, point: Point, samples: Samples, draw: Draw) -> Tensor:
    with torch.no_grad():
        return answer(target, point, samples.ids, draw)


def _harm(target: ModelTarget, point: Point, samples: Samples, draw: Draw) -> Tensor:
    passes = [_logits(target, point, samples, draw.at(i)) for i in range(CHOICE_PASSES)]
    return log_mean_cross_entropy(torch.stack([log_odds(logits, samples.labels) for logits in passes]))


def _where(mask: Tensor, yes: Point, no: Point) -> Point:
    if isinstance(yes, Steered) and isinstance(no, Steered):
        return no._replace(delta=torch.where(mask[:, None, None], yes.delta, no.delta))
    assert isinstance(yes, Tensor)
    assert isinstance(no, Tensor)
    return torch.where(mask[:, None, None, None], yes, no)
