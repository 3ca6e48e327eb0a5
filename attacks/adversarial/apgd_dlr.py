"""APGD on the difference of logits ratio, which no scale and no shift of the logits changes."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .apgd import apgd_searches
from .ladder import laddered
from .objective import dlr


def apgd_dlr(
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

    `passes` is for stochastic models: the mean ratio is climbed, and of the points tried the one with the highest mean
    cross-entropy is returned. The severities of `APGD_DLR` suit L-inf.

    Raises ValueError for models of two classes, an unknown norm, severities that do not rise and counts below 1;
    ArithmeticError where the logits are not finite. Croce & Hein 2020, arXiv:2003.01690, algorithm 1 and equation 6.
    """
    return laddered(samples, severities, draw, target, apgd_searches(norm, steps, restarts, dlr, "dlr"), passes)


APGD_DLR = Shift(
    name="apgd_dlr",
    apply=apgd_dlr,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:2003.01690, algorithm 1 and equation 6",
    version=2,
    summary="Steps uphill on the difference of logits ratio that halve themselves where they stop paying off.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    settings={"norm": "linf", "steps": 100, "restarts": 1, "passes": 20},
    choices={"norm": ("linf", "l2")},
)
