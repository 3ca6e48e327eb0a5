"""APGD on the cross-entropy: gradient steps that choose their own length, with nothing to tune."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .apgd import apgd_searches
from .ladder import laddered
from .objective import log_odds


def apgd_ce(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    steps: int,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images within eps of the clean ones that fool the model where any point of a walk did.

    What is climbed are the log-odds, of which the cross-entropy is a rising function: the same points are higher, and a
    model that is sure of itself still has a gradient. `passes` is for stochastic models; their rules stand in `ladder`.
    The severities of `APGD_CE` suit L-inf; L2 balls of the same reach are sqrt(number of pixels) larger.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Croce & Hein 2020, arXiv:2003.01690, algorithm 1.
    """
    return laddered(samples, severities, draw, target, apgd_searches(norm, steps, restarts, log_odds, "ce"), passes)


APGD_CE = Shift(
    name="apgd_ce",
    apply=apgd_ce,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:2003.01690, algorithm 1",
    version=2,
    summary="Steps uphill on the cross-entropy that halve themselves where they stop paying off.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    settings={"norm": "linf", "steps": 100, "restarts": 1, "passes": 20},
    choices={"norm": ("linf", "l2")},
)
