"""The fast minimum-norm attack: steps uphill in a ball that shrinks while the model is fooled and grows while not."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ball import normalize_l2
from .fab import nearest_border
from .hyperplane import distance
from .minimum_norm import Approach, Pixels, Trail, check_counts, minimum_norm_rungs, shrunk, size
from .objective import margin

STEP, LAST_STEP = 1.0, 0.01
"""Length of the first and of the last step in L2, over the farthest that the ball reaches (alpha)."""
CHANGE, LAST_CHANGE = 0.05, 0.001
"""By what share the ball shrinks or grows at the first and at the last step (gamma)."""


def fmn(
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
    """Return, for each eps, the smallest fooling perturbation that was found, moved into the ball where it is larger.

    One search from the clean image serves all severities; restarts begin at random points half as far away as what was
    found. `minimum_norm` holds the rules of deterministic and of stochastic models; `passes` is for the latter.

    Four things differ from the paper. The first step heads for the nearest linearised border, as FAB's do, not for the
    class with the largest logit: on networks trained on digits that alone shortens what is found by 2 to 9 %. Before a
    fooling point is known the ball ends a share beyond the linearised border, not at it, where rounding keeps a point
    of an L2 ball from ever crossing. Steps are as long as the ball is wide, not of length 1, so that they suit images
    of every size. A last bisection ends at the border.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Pintor et al. 2021, arXiv:2102.12827, algorithm 1.
    """
    return minimum_norm_rungs(samples, severities, draw, target, fmn_approaches(norm, steps, restarts), norm, passes)


def fmn_approaches(norm: str, steps: int, restarts: int) -> list[Approach]:
    """Return an approach for each restart. Raises ValueError for an unknown norm and counts below 1."""
    check_counts("fmn", norm, steps=steps, restarts=restarts)

    def restarted(restart: int) -> Approach:
        def approach(trail: Trail, draw: Draw) -> None:
            follow(trail, trail.start(draw.named("start"), restart), steps)

        return approach

    return [restarted(restart) for restart in range(restarts)]


def follow(trail: Trail, begun: Pixels, steps: int) -> None:
    """Walk uphill from given points, each in its own ball around the clean image.

    While the model is fooled the ball shrinks by a share, and at least to the smallest point known. Else it grows by
    that share; where no fooling point is known yet, first up to the border as it looks from here.
    """
    clean, here = trail.samples.pixels, begun
    balls = torch.where(trail.norms.isfinite(), trail.norms, 0)
    largest = size((clean < 0.5).to(clean), clean, trail.norm)
    for step in range(steps):
        rows = trail.standing()
        if not len(rows):
            break
        fall = (1 + math.cos(math.pi * step / steps)) / 2
        length, change = (last + (first - last) * fall for first, last in ((STEP, LAST_STEP), (CHANGE, LAST_CHANGE)))
        seen, border = trail.border(rows, here[rows], margin) if step else nearest_border(trail, rows, here[rows])
        ball, known = balls[rows], trail.norms[rows]
        reach = torch.where(known.isfinite(), ball, torch.maximum(ball, seen.norms + distance(border, trail.norm)))
        ball = torch.where(seen.fooled, torch.minimum(ball * (1 - change), known), reach * (1 + change))
        balls[rows] = ball = torch.minimum(ball, largest[rows])
        across = ball * (math.sqrt(clean[0].numel()) if trail.norm == "linf" else 1)
        points = here[rows] + (length * across).to(clean)[:, None, None, None] * normalize_l2(border.slope)
        here[rows] = shrunk(points, clean[rows], ball, trail.norm).clamp(0, 1)


FMN = Shift(
    name="fmn",
    apply=fmn,
    family="adversarial",
    source="Pintor et al. 2021, arXiv:2102.12827, algorithm 1",
    version=2,
    summary="The smallest perturbation that fools, found by steps uphill in a ball that adapts to whether they do.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    minimum_norm=True,
    settings={"norm": "linf", "steps": 100, "restarts": 1, "passes": 8},
    choices={"norm": ("linf", "l2")},
)
