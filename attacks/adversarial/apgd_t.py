"""Targeted APGD: towards the likeliest wrong classes one after another, whichever the model falls for first."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .apgd import apgd_targeted_searches
from .ladder import laddered
from .objective import dlr_towards


def apgd_t(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    steps: int,
    restarts: int,
    targets: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images within eps of the clean ones that fool the model where any point of a walk did.

    The aims are the `targets` likeliest classes of the clean image other than its label, or all of them if there are
    fewer; any wrong class counts as success. `passes` is for stochastic models: the mean targeted ratio is climbed, and
    of the points tried the one with the highest mean cross-entropy is returned. The severities of `APGD_T` suit L-inf.

    Raises ValueError for models of fewer than four classes, an unknown norm, severities that do not rise and counts
    below 1; ArithmeticError where the logits are not finite. Croce & Hein 2020, arXiv:2003.01690, algorithm 1 and
    equation 7.
    """
    searches = apgd_targeted_searches(norm, steps, restarts, targets, dlr_towards)
    return laddered(samples, severities, draw, target, searches, passes)


APGD_T = Shift(
    name="apgd_t",
    apply=apgd_t,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:2003.01690, algorithm 1 and equation 7",
    version=2,
    summary="Steps that choose their own length towards each of the likeliest wrong classes.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    settings={"norm": "linf", "steps": 100, "restarts": 1, "targets": 9, "passes": 20},
    choices={"norm": ("linf", "l2")},
)
