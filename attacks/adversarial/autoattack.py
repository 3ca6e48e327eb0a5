"""AutoAttack: the field's sequence of attacks with nothing to tune, each on the samples that the last left standing."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from jaxtyping import Float, Int
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .apgd import apgd_searches, apgd_targeted_searches
from .fab import fab_searches, fab_targeted_searches
from .ladder import Search, laddered
from .objective import Objective, difference_towards, dlr, dlr_towards, log_odds, margin
from .square import square_searches

STEPS = 100
"""Of each walk of APGD and FAB."""
TARGETS = 9
"""Wrong classes that the targeted attacks try."""
QUERIES = 5000
"""Of Square."""

VERSIONS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "standard": (("apgd_ce", 1), ("apgd_t", 1), ("fab_t", 1), ("square", 1)),
    "plus": (("apgd_ce", 5), ("apgd_dlr", 5), ("fab", 5), ("square", 1), ("apgd_t", 1), ("fab_t", 1)),
    "rand": (("apgd_ce", 1), ("apgd_dlr", 1)),
}
"""Attacks in their order, with the number of restarts of each."""


def autoattack(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    version: str,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images within eps of the clean ones that fool the model where any attack found one.

    `standard` runs APGD on the cross-entropy, targeted APGD and targeted FAB towards 9 classes, 100 steps a walk, and
    Square with 5000 queries. `plus` adds APGD on the difference of logits ratio and FAB without a target; these two and
    APGD on the cross-entropy get 5 restarts. `rand` is meant for stochastic models: the two APGD without a target, each
    look a mean over `passes` passes, of which the authors take 20. The other two versions run on stochastic models too,
    with the same passes, but they are defined for deterministic ones, where `passes` changes nothing.

    The ratio needs three classes and its targeted form four. Where there are fewer, the official code fails; here the
    plain difference of the two logits takes the ratio's place, so that all versions run from two classes on.

    Every attack sees the images that all attacks before it left standing, at every eps; the rules stand in `ladder`.
    The severities of `AUTOATTACK` suit L-inf. Raises ValueError for an unknown version or norm and for severities that
    do not rise; ArithmeticError where the logits are not finite. Croce & Hein 2020, arXiv:2003.01690; the versions are
    those of the authors' code, `autoattack`.
    """
    return laddered(samples, severities, draw, target, members(version, norm, STEPS, QUERIES), passes)


def members(version: str, norm: str, steps: int, queries: int) -> list[Search]:
    """Return the searches of a version in their order. Raises ValueError for an unknown version or norm."""
    if version not in VERSIONS:
        raise ValueError(f"unknown version {version!r} for autoattack; choose from {', '.join(VERSIONS)}")
    made: Mapping[str, Callable[[int], list[Search]]] = {
        "apgd_ce": lambda restarts: apgd_searches(norm, steps, restarts, log_odds, "ce"),
        "apgd_dlr": lambda restarts: apgd_searches(norm, steps, restarts, dlr_or_margin, "dlr"),
        "apgd_t": lambda restarts: apgd_targeted_searches(norm, steps, restarts, TARGETS, dlr_or_difference_towards),
        "fab": lambda restarts: fab_searches(norm, steps, restarts),
        "fab_t": lambda restarts: fab_targeted_searches(norm, steps, restarts, TARGETS),
        "square": lambda restarts: square_searches(norm, queries, restarts),
    }
    return list(chain.from_iterable(made[name](restarts) for name, restarts in VERSIONS[version]))


def dlr_or_margin(logits: Float[Tensor, "batch class"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the difference of logits ratio, or with two classes the difference alone."""
    return dlr(logits, labels) if logits.shape[1] >= 3 else margin(logits, labels)


def dlr_or_difference_towards(aims: Int[Tensor, " batch"]) -> Objective:
    """Return the targeted difference of logits ratio, or with fewer than four classes the difference alone."""
    ratio, difference = dlr_towards(aims), difference_towards(aims)

    def towards(logits: Tensor, labels: Tensor) -> Tensor:
        return (ratio if logits.shape[1] >= 4 else difference)(logits, labels)

    return towards


AUTOATTACK = Shift(
    name="autoattack",
    apply=autoattack,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:2003.01690",
    version=2,
    summary="A sequence of attacks with nothing to tune; each takes on what the others left standing.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    settings={"norm": "linf", "version": "standard", "passes": 20},
    choices={"norm": ("linf", "l2"), "version": ("standard", "plus", "rand")},
)
