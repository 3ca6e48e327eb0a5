"""The fast adaptive boundary attack: from border to border of the linearised classes, ever closer to the image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..draw import Draw
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from ..shift import Shift
from .apgd import rivals
from .hyperplane import Border, distance, shortest_way
from .ladder import Search
from .minimum_norm import Approach, Pixels, Rows, Sighting, Trail, as_search, check_counts, minimum_norm_rungs
from .objective import difference_towards, margin

RIVALS = 9
"""How many other classes are linearised at a point, the likeliest there: each costs a gradient. Ten classes: all."""

PULL = 0.1
"""The largest weight of the step that starts at the clean image (alpha_max)."""
OVERSHOOT = 1.05
"""How much farther than the border a step goes (eta)."""
BACK = 0.9
"""What is left of a perturbation after it has fooled (beta)."""


def fab(
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
    found. A last bisection, the paper's final search, ends at the border. `minimum_norm` holds the rules of
    deterministic and of stochastic models; `passes` is for the latter. With more than ten classes, only the nine that
    are likeliest at a point are linearised there, where the paper takes all.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Croce & Hein 2020, arXiv:1907.02044, algorithm 1.
    """
    return minimum_norm_rungs(samples, severities, draw, target, fab_approaches(norm, steps, restarts), norm, passes)


def fab_approaches(norm: str, steps: int, restarts: int) -> list[Approach]:
    """Return an untargeted approach for each restart. Raises ValueError for an unknown norm and counts below 1."""
    check_counts("fab", norm, steps=steps, restarts=restarts)

    def restarted(restart: int) -> Approach:
        def approach(trail: Trail, draw: Draw) -> None:
            follow(trail, trail.start(draw.named("start"), restart), steps, None)

        return approach

    return [restarted(restart) for restart in range(restarts)]


def fab_targeted_approaches(norm: str, steps: int, restarts: int, targets: int) -> list[Approach]:
    """Return an approach for each restart of each target: the other classes, the likeliest at the clean image first.

    Targets that the model has no class for are passed over. Raises ValueError for an unknown norm and counts below 1.
    """
    check_counts("fab_t", norm, steps=steps, restarts=restarts, targets=targets)

    def restarted(rank: int, restart: int) -> Approach:
        def approach(trail: Trail, draw: Draw) -> None:
            rows = trail.standing()
            if not len(rows):
                return
            logits = trail.look(rows, trail.samples.pixels[rows]).view.logits
            if rank < logits.shape[1] - 1:
                aims = trail.samples.labels.clone()
                aims[rows] = rivals(logits, aims[rows], rank + 1)[:, rank]
                follow(trail, trail.start(draw.named(f"start-{rank}"), restart), steps, aims)

        return approach

    return [restarted(rank, restart) for rank in range(targets) for restart in range(restarts)]


def fab_searches(norm: str, steps: int, restarts: int) -> list[Search]:
    """Return the untargeted attack as searches within an eps, one a restart. Raises as `fab_approaches` does."""
    return [as_search(approach, norm) for approach in fab_approaches(norm, steps, restarts)]


def fab_targeted_searches(norm: str, steps: int, restarts: int, targets: int) -> list[Search]:
    """Return the targeted attack as searches within an eps. Raises as `fab_targeted_approaches` does."""
    return [as_search(approach, norm) for approach in fab_targeted_approaches(norm, steps, restarts, targets)]


def follow(trail: Trail, begun: Pixels, steps: int, aims: Tensor | None) -> None:
    """Walk along a border from given points; towards one class a sample, or towards the nearest of all.

    The border seen from a point is a hyperplane. The next point lies a little beyond it, between the point's own
    projection and that of the clean image. After a point that fools, the perturbation is shortened.
    """
    clean, here = trail.samples.pixels, begun
    for _ in range(steps):
        rows = trail.standing()
        if not len(rows):
            break
        if aims is None:
            _, border = nearest_border(trail, rows, here[rows])
        else:
            _, border = trail.border(rows, here[rows], difference_towards(aims[rows]))
        points = beyond(border, here[rows], clean[rows], trail.norm)
        fooled = trail.look(rows, points).fooled[:, None, None, None]
        here[rows] = torch.where(fooled, clean[rows] + BACK * (points - clean[rows]), points)


def nearest_border(trail: Trail, rows: Rows, points: Pixels) -> tuple[Sighting, Border]:
    """Look at points, and at the nearest of the borders that they see towards the likeliest other classes."""
    seen, nearest = trail.border(rows, points, margin)
    shortest = distance(nearest, trail.norm)
    for rival in rivals(seen.view.logits, trail.samples.labels[rows], RIVALS)[:, 1:].T:
        _, other = trail.border(rows, points, difference_towards(rival))
        away = distance(other, trail.norm)
        nearer = away < shortest
        shortest = torch.where(nearer, away, shortest)
        slope = torch.where(nearer[:, None, None, None], other.slope, nearest.slope)
        nearest = Border(torch.where(nearer, other.gap, nearest.gap), slope)
    return seen, nearest


def beyond(border: Border, points: Pixels, clean: Pixels, norm: str) -> Pixels:
    """Return the next points: a little beyond the border, drawn towards the clean images."""
    here, origin, slopes = (images.flatten(1).double() for images in (points, clean, border.slope))
    rises = -border.gap.double()
    ways = shortest_way(here, slopes, rises, norm)
    ways_from_clean = shortest_way(origin, slopes, rises + ordered_sum(slopes * (here - origin)), norm)
    lengths, lengths_from_clean = (_lengths(way, norm) for way in (ways, ways_from_clean))
    total = (lengths + lengths_from_clean).clamp_min(torch.finfo(lengths.dtype).tiny)
    pull = (lengths / total).clamp(max=PULL)[:, None]
    onward = (1 - pull) * (here + OVERSHOOT * ways) + pull * (origin + OVERSHOOT * ways_from_clean)
    return onward.clamp(0, 1).to(points.dtype).view_as(points)


def _lengths(ways: Float[Tensor, "row pixel"], norm: str) -> Float[Tensor, " row"]:
    return ways.abs().amax(1) if norm == "linf" else ordered_sum(ways**2).sqrt()


FAB = Shift(
    name="fab",
    apply=fab,
    family="adversarial",
    source="Croce & Hein 2020, arXiv:1907.02044, algorithm 1",
    version=2,
    summary="The smallest perturbation that fools, found by projecting onto the linearised borders of the classes.",
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
