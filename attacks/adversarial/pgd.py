"""Projected gradient descent: the steepest steps uphill inside a ball around the image, from a random start."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ascent import Walk, walks
from .ball import BALLS
from .ladder import laddered


def pgd(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    steps: int,
    relative_step: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images within eps of the clean ones that fool the model where any step of any walk did.

    Untargeted cross-entropy of the true labels. Images that the model already gets wrong come back unchanged. The other
    rules of deterministic and of stochastic models stand in `ladder`; `passes` is for the latter. The default step is
    eps / 4, the field's 2/255 at 8/255: on digits it fools more samples than 2.5 eps / steps, and varies less with its
    start. The severities of `PGD` suit L-inf; L2 balls of the same reach are sqrt(number of pixels) larger.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Madry et al. 2018, arXiv:1706.06083, section 2.1.
    """
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for pgd; choose from {', '.join(BALLS)}")
    searches = walks(Walk(BALLS[norm], steps, relative_step), restarts)
    return laddered(samples, severities, draw, target, searches, passes)


PGD = Shift(
    name="pgd",
    apply=pgd,
    family="adversarial",
    source="Madry et al. 2018, arXiv:1706.06083, section 2.1",
    version=3,
    summary="The steepest steps uphill inside a ball around the image; any step that fools counts.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    settings={"norm": "linf", "steps": 20, "relative_step": 0.25, "restarts": 1, "passes": 8},
    choices={"norm": ("linf", "l2")},
)
