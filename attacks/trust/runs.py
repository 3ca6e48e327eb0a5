"""The walks that several measurements share, each from scratch and to its last step."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ..samples import Target
from .trial import Trace, Trial


class Runs(NamedTuple):
    """What the white box did."""

    rungs: tuple[Trace, ...]
    """One walk at each eps of the ladder."""
    eps: float
    """The reference eps, where the walk fools nearest to half of the samples."""
    restarts: tuple[Trace, ...]
    """Walks at the reference eps from several starts; the first is the one of the ladder."""
    doubled: Trace
    """The first of them with twice the steps."""
    single: Trace
    """One step of size eps from the clean image."""
    unbounded: Trace
    """A walk whose ball holds every image, with twice the steps."""
    opened: Trace | None
    """A walk at the reference eps along the gradients of the opened twin, judged on the model."""
    surrogate: Trace | None
    """A walk at the reference eps along the gradients of another model, judged on the model."""

    @property
    def white(self) -> Bool[Tensor, " batch"]:
        """Which samples any step of any walk at the reference eps fools."""
        return torch.stack([run.ever for run in (*self.restarts, self.doubled, self.single)]).any(0)


def runs(trial: Trial, opened: Target | None, surrogate: Target | None) -> Runs:
    """Walk on a model, and on its opened twin and another model where they are given."""
    settings, ladder = trial.settings, trial.ladder
    rungs = tuple(trial.walk(eps) for eps in ladder)
    reference = nearest_half([float(rung.fooled.double().mean()) for rung in rungs])
    eps = ladder[reference]
    others = (trial.walk(eps, restart=restart) for restart in range(1, settings.restarts))
    everything = 1.0 if trial.norm == "linf" else trial.right.pixels[0].numel() ** 0.5
    return Runs(
        rungs,
        eps,
        (rungs[reference], *others),
        trial.walk(eps, steps=2 * settings.steps),
        trial.walk(eps, single=True),
        trial.walk(everything, steps=2 * settings.steps),
        *(None if source is None else trial.walk(eps, source=source) for source in (opened, surrogate)),
    )


def nearest_half(shares: list[float]) -> int:
    """Return where a rising list is nearest to 1/2: the last of equals below, the first of equals above.

    >>> nearest_half([0.0, 0.3, 0.9]), nearest_half([0.0, 0.0]), nearest_half([1.0, 1.0])
    (1, 1, 0)
    """
    return min(range(len(shares)), key=lambda i: (abs(shares[i] - 0.5), i if shares[i] > 0.5 else -i))
