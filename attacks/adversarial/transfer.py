"""Points that fool other models: what an attacker reaches who cannot look into this one."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ascent import Walk, climb, start
from .ball import BALLS
from .ladder import Found, laddered
from .look import Look


@runtime_checkable
class Shadowed(Protocol):
    """A target that knows a stand-in for itself."""

    surrogate: Target
    """What is attacked in its place: another model, or the mean of several."""


def transfer(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    sources: str,
    norm: str,
    steps: int,
    relative_step: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, the points that a stand-in finds worst, within eps of the clean images.

    The stand-in is walked uphill to the last step, since the first point that fools it seldom fools another model; of
    each walk the point with the highest loss is kept. The model itself is asked once a walk, whether it is fooled, and
    what fooled it (deterministic ones) is kept at larger eps. `sources` names the rows that make up the stand-in,
    joined by +; the runner finds them and leaves out the attacked network itself.

    Raises ValueError for a target without a stand-in, an unknown norm, severities that do not rise and counts below 1;
    ArithmeticError where logits are not finite. Papernot et al. 2016, arXiv:1605.07277; the mean of logits of an
    ensemble: Liu et al. 2017, arXiv:1611.02770.
    """
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for transfer; choose from {', '.join(BALLS)}")
    if not isinstance(target, Shadowed):
        raise ValueError("transfer needs a stand-in to attack; give it a target with a surrogate")
    if min(steps, restarts, passes) < 1 or relative_step <= 0:
        raise ValueError(
            f"steps, restarts and passes must be at least 1 and relative_step above 0, got steps={steps}, "
            f"restarts={restarts}, passes={passes}, relative_step={relative_step}"
        )
    surrogate = target.surrogate
    other = Look(surrogate, draw.named("surrogate"), 1 if surrogate.deterministic else passes)
    walk = Walk(BALLS[norm], steps, relative_step)
    searches = [partial(_carried_over, walk=walk, restart=restart, other=other) for restart in range(restarts)]
    return laddered(samples, severities, draw, target, searches, passes)


def _carried_over(
    samples: Samples, eps: float, draw: Draw, look: Look, *, walk: Walk, restart: int, other: Look
) -> Found:
    begun = start(samples, eps, draw.at(restart), walk)
    pixels = climb(samples, begun, eps, walk, other, "highest").pixels
    view = look(samples._replace(pixels=pixels))
    return Found(pixels, view.fooled, view.loss)


TRANSFER = Shift(
    name="transfer",
    apply=transfer,
    family="adversarial",
    source="Papernot et al. 2016, arXiv:1605.07277; ensembles: Liu et al. 2017, arXiv:1611.02770",
    version=2,
    summary="The steepest steps uphill on other models; what they find is shown to this one.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="transfer",
    settings={
        "sources": "softmax",
        "norm": "linf",
        "steps": 20,
        "relative_step": 0.25,
        "restarts": 1,
        "passes": 8,
    },
    choices={"norm": ("linf", "l2")},
)
