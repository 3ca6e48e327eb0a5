"""The fast adaptive boundary attack towards one other class after another, for models of many classes."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .fab import fab_targeted_approaches
from .minimum_norm import minimum_norm_rungs


def fab_t(
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
    """Return, for each eps, the smallest fooling perturbation that was found, moved into the ball where it is larger.

    As `fab`, but each search follows the border towards one class: the other classes in turn, from the likeliest at the
    clean image on, `targets` of them or all there are. A point fools whichever class it is taken for.

    Raises as `fab` does. Croce & Hein 2020, arXiv:1907.02044, algorithm 1, and arXiv:2003.01690.
    """
    approaches = fab_targeted_approaches(norm, steps, restarts, targets)
    return minimum_norm_rungs(samples, severities, draw, target, approaches, norm, passes)


FAB_T = Shift(
    name="fab_t",
    apply=fab_t,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:2003.01690",
    version=2,
    summary="The smallest perturbation that fools, found along the borders towards nine other classes in turn.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    minimum_norm=True,
    settings={"norm": "linf", "steps": 100, "restarts": 1, "targets": 9, "passes": 8},
    choices={"norm": ("linf", "l2")},
)
