"""Random noise: the worst of many random perturbations, which any search worth its name has to beat."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ball import BALLS, Pixels, length
from .ladder import Found, Search, laddered
from .look import Look
from .random_search import random_search

EDGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "linf": lambda inner: torch.where(inner < 0, -1.0, 1.0),
    "l2": lambda inner: inner / length(inner),
}
"""From points uniform in the unit ball to points uniform on what bounds it: L-inf's corners, L2's sphere; by norm."""


def noise_searches(norm: str, draws: int) -> list[Search]:
    """Return the one search. Raises ValueError for an unknown norm and fewer draws than 1."""
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for random_noise; choose from {', '.join(BALLS)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got draws={draws}")
    ball, edge = BALLS[norm], EDGES[norm]

    def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
        def propose(index: int, rows: Tensor, some: Samples, best: Tensor) -> Tensor:
            inner = ball.random_start(draw.named(f"noise.{index}"), some.ids, some.pixels.shape[1:])
            noise = (inner if index % 2 else edge(inner)).to(some.pixels)
            return ball.project(some.pixels + eps * noise, some.pixels, eps)

        return random_search(samples, look, draws, propose)

    return [search]


def random_noise(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    draws: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, the random points that fool the model, else those that came closest.

    Points are drawn in turn from the ball's edge (L-inf: its corners, every pixel moved by eps up or down; L2: its
    sphere) and from its inside, uniformly by volume; then the pixels are cut to [0, 1]. The noise of a sample is the
    same, but for its size, at every eps and for every model. The rules of deterministic and of stochastic models stand
    in `ladder`; `passes` is for the latter.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Carlini et al. 2019, arXiv:1902.06705, section 5.7, asks for the test.
    """
    return laddered(samples, severities, draw, target, noise_searches(norm, draws), passes)


RANDOM_NOISE = Shift(
    name="random_noise",
    apply=random_noise,
    family="adversarial",
    source="Carlini et al. 2019, arXiv:1902.06705",
    version=2,
    summary="The worst of many random perturbations: what any search has to beat.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="black_box",
    settings={"norm": "linf", "draws": 1000, "passes": 8},
    choices={"norm": ("linf", "l2")},
)
