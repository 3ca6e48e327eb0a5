"""Square attack: squares of one colour are tried at random places and stay where they help; only logits are needed."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..draw import Draw
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from ..shift import Shift
from .ball import BALLS, Pixels, length
from .ladder import Found, Search, laddered
from .look import Look
from .random_search import random_search

INITIAL_SHARE = 0.8
"""Share of the image's area that the first squares cover: AutoAttack's p_init."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The share is halved after each of these many squares, whatever the budget."""
TINY = torch.finfo(torch.float32).tiny
"""The smallest normal number: lengths below it count as it."""

Uniform = Float[Tensor, "batch pick"]
Energies = Float[Tensor, "*kind batch channel"]


class Squares(NamedTuple):
    """All squares of one side that fit into an image."""

    rows: Int[Tensor, "top height"]
    """How far each row lies below a square's upper edge, -1 for rows outside the square."""
    columns: Int[Tensor, "left width"]
    """How far each column lies to the right of a square's left edge, -1 for columns outside the square."""
    bumps: Float[Tensor, "2 side_and_1 side_and_1"]
    """Two shapes to fill a square with, and a last row and column of 0 for what is outside."""

    def chosen(
        self, corner: Float[Tensor, "batch 2"]
    ) -> tuple[Int[Tensor, "batch height"], Int[Tensor, "batch width"]]:
        """Return rows and columns of one square a sample, uniform over all that fit, from uniform numbers.

        The last row and column are as likely as in the paper; AutoAttack's code never reaches them.
        """
        return (
            self.rows[(corner[:, 0] * len(self.rows)).long()],
            self.columns[(corner[:, 1] * len(self.columns)).long()],
        )


class Moves(NamedTuple):
    """How one norm's attack starts and moves."""

    start: Callable[[Samples, float, Draw], Pixels]
    """The first points, from clean samples, eps and the draw."""
    side: Callable[[int, int, int], int]
    """Side of a square in pixels, from the number of squares before it, height and width."""
    fixed_picks: int
    """Uniform numbers that a square takes, besides one a channel."""
    propose: Callable[[Pixels, Pixels, float, Squares, Uniform], Pixels]
    """The next points, from the best, the clean ones, eps, the squares to choose from and uniform numbers."""


def area_share(before: int) -> float:
    """Return the share of the area that a square covers after some others.

    >>> [area_share(before) for before in (0, 10, 11, 51, 4999)]
    [0.8, 0.8, 0.4, 0.2, 0.00625]
    """
    return INITIAL_SHARE / float(1 << bisect_left(HALVINGS, before))


def side_linf(before: int, height: int, width: int) -> int:
    """Return the side, at least 1 and at most that of the image.

    >>> [side_linf(before, 8, 8) for before in (0, 11, 51, 201, 501, 4999)]
    [7, 5, 4, 3, 2, 1]
    """
    return min(max(round(math.sqrt(area_share(before) * height * width)), 1), height, width)


def side_l2(before: int, height: int, width: int) -> int:
    """Return the side, odd, at least 3 and at most that of the image.

    >>> [side_l2(before, 8, 8) for before in (0, 11, 51, 201, 501, 4999)]
    [7, 5, 5, 3, 3, 3]
    """
    wanted = max(round(math.sqrt(area_share(before) * height * width)), 3) // 2 * 2 + 1
    return min(wanted, (min(height, width) - 1) // 2 * 2 + 1)


def squares(side: int, like: Pixels) -> Squares:
    """Return all squares of one side that fit into images of a shape."""

    def offsets(size: int) -> Int[Tensor, "first place"]:
        places = torch.arange(size, device=like.device)
        behind = places - places[: size - side + 1, None]
        return torch.where(behind < side, behind, -1).clamp_min(-1)

    shapes = torch.zeros(2, side + 1, side + 1).to(like)
    shapes[:, :side, :side] = bumps(side)
    return Squares(offsets(like.shape[2]), offsets(like.shape[3]), shapes)


def mask(
    rows: Int[Tensor, "batch height"], columns: Int[Tensor, "batch width"]
) -> Bool[Tensor, "batch 1 height width"]:
    """Return which pixels lie in the chosen squares."""
    return ((rows >= 0)[:, :, None] & (columns >= 0)[:, None, :])[:, None]


def signs(uniform: Tensor) -> Tensor:
    """Return -1 for the lower half of [0, 1) and 1 for the upper, float32."""
    return torch.where(uniform < 0.5, -1.0, 1.0)


def start_linf(samples: Samples, eps: float, draw: Draw) -> Pixels:
    """Return corners of the ball, one sign for each channel and column."""
    _, channels, _, width = samples.pixels.shape
    stripes = signs(draw.named("stripes").uniform(samples.ids, (channels, 1, width), samples.pixels.device))
    return (samples.pixels + eps * stripes).clamp(0, 1)


def propose_linf(best: Pixels, clean: Pixels, eps: float, fitting: Squares, picks: Uniform) -> Pixels:
    """Return the best points with one square moved to a corner of the ball, one sign a channel.

    Where the signs would change nothing, all are turned: the authors' first code draws them again, AutoAttack's wastes
    the query.
    """
    inside = mask(*fitting.chosen(picks[:, :2]))
    colour = eps * signs(picks[:, 2:])[:, :, None, None]
    tried = torch.where(inside, (clean + colour).clamp(0, 1), best)
    idle = (tried == best).flatten(1).all(1)[:, None, None, None]
    return torch.where(inside & idle, (clean - colour).clamp(0, 1), tried)


def bumps(side: int) -> Float[Tensor, "2 side side"]:
    """Return a hill above a valley, at unit length, and the same transposed. Each fills half of the square."""
    upper, lower = hill(side // 2, side), hill(side - side // 2, side)
    both = torch.cat([upper, -lower])
    both = both / both.square().sum().sqrt()
    return torch.stack([both, both.T]).float()


def hill(height: int, width: int) -> Float[Tensor, "height width"]:
    """Return sum_k 1 / (1 + k)^2, k from a place's distance to the middle up to the largest one, at unit length.

    The distance is that of the farther axis. Sizes of 0 give an empty hill. The paper calls it eta.
    """
    rows, columns = ((torch.arange(size) - size // 2).abs() for size in (height, width))
    terms = 1 / torch.arange(1, max(height // 2, width // 2) + 2).double() ** 2
    heights = terms.flip(0).cumsum(0).flip(0)[torch.maximum(rows[:, None], columns[None, :])]
    return heights / heights.square().sum().sqrt()


def start_l2(samples: Samples, eps: float, draw: Draw) -> Pixels:
    """Return points at length eps whose perturbation is a grid of bumps, a fifth of the image's side each."""
    pixels, ids = samples.pixels, samples.ids
    _, channels, height, width = pixels.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    tiles = signs(draw.named("tiles").uniform(ids, (channels, down, across), pixels.device))
    turned = (draw.named("turns").uniform(ids, (down, across), pixels.device) < 0.5).long()
    rows = torch.arange(down * side, device=pixels.device)[:, None]
    columns = torch.arange(across * side, device=pixels.device)[None, :]
    row, column = rows // side, columns // side
    shapes = bumps(side).to(pixels)[turned[:, row, column], rows % side, columns % side]
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(pixels)
    delta[:, :, top : top + down * side, left : left + across * side] = shapes[:, None] * tiles[:, :, row, column]
    return BALLS["l2"].project(pixels + eps * delta / length(delta), pixels, eps)


def propose_l2(best: Pixels, clean: Pixels, eps: float, fitting: Squares, picks: Uniform) -> Pixels:
    """Return the best points with what one square spends of eps, and what nobody does, moved into another square.

    There a bump is added to the direction that the perturbation has already. Algorithm 3 of the paper.
    """
    rows, columns = fitting.chosen(picks[:, :2])
    inside, emptied = mask(rows, columns), mask(*fitting.chosen(picks[:, 2:4]))
    turned = (picks[:, 4] < 0.5).long()[:, None, None]
    bump = fitting.bumps[turned, rows[:, :, None], columns[:, None, :]][:, None]
    delta = best - clean
    old = delta * inside
    own, both, spent = energy(torch.stack([old, delta * (inside | emptied), delta]))
    fresh = bump * signs(picks[:, 5:])[:, :, None, None] + old / root(own)
    unused = (eps**2 - ordered_sum(spent)).clamp_min(0)[:, None] / clean.shape[1]
    fresh = fresh * (root(both + unused) / root(energy(fresh)))
    delta = torch.where(inside, fresh, delta.masked_fill(emptied, 0))
    return BALLS["l2"].project(clean + delta, clean, eps)


def energy(delta: Float[Tensor, "*kind batch channel height width"]) -> Energies:
    """Return the sum of squares of each channel, in float64."""
    return ordered_sum(delta.flatten(-2).double() ** 2)


def root(energies: Energies) -> Float[Tensor, "batch channel 1 1"]:
    """Return the lengths in float32; the smallest normal number where they are less."""
    return energies.sqrt().clamp_min(TINY).float()[:, :, None, None]


MOVES: Mapping[str, Moves] = {
    "linf": Moves(start_linf, side_linf, 2, propose_linf),
    "l2": Moves(start_l2, side_l2, 5, propose_l2),
}
"""By the name of the norm."""


def square_searches(norm: str, queries: int, restarts: int) -> list[Search]:
    """Return a search for each restart. Raises ValueError for an unknown norm and counts below 1."""
    if norm not in MOVES:
        raise ValueError(f"unknown norm {norm!r} for square; choose from {', '.join(MOVES)}")
    if min(queries, restarts) < 1:
        raise ValueError(f"queries and restarts must be at least 1, got queries={queries}, restarts={restarts}")
    moves = MOVES[norm]

    def restarted(restart: int) -> Search:
        def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
            stream, pixels = draw.at(restart), samples.pixels
            _, channels, height, width = pixels.shape
            picks = stream.named("squares").uniform(samples.ids, (queries, moves.fixed_picks + channels), pixels.device)
            sides = [moves.side(before, height, width) for before in range(queries)]
            fitting = {side: squares(side, pixels) for side in set(sides)}

            def propose(index: int, rows: Tensor, some: Samples, best: Tensor) -> Tensor:
                if index == 0:
                    return moves.start(some, eps, stream)
                now = index - 1
                return moves.propose(best, some.pixels, eps, fitting[sides[now]], picks[rows, now])

            return random_search(samples, look, 1 + queries, propose)

        return search

    return [restarted(restart) for restart in range(restarts)]


def square(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    queries: int,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images that fool the model where the start or one of `queries` squares did.

    Untargeted, on the margin of the logits, with AutoAttack's schedule, which the number of queries does not stretch.
    Three things differ from AutoAttack's code: squares reach the last row and column, none is wasted on a colour that
    is there already, and in L2 what a square may spend is counted channel by channel; the first and the last are as in
    the paper. The rules of deterministic and of stochastic models stand in `ladder` and `random_search`; `passes` is
    for the latter.

    Raises ValueError for an unknown norm, severities that do not rise and counts below 1; ArithmeticError where the
    logits are not finite. Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3.
    """
    return laddered(samples, severities, draw, target, square_searches(norm, queries, restarts), passes)


SQUARE = Shift(
    name="square",
    apply=square,
    family="adversarial",
    source="Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3; constants of AutoAttack, arXiv:2003.01690",
    version=2,
    summary="Squares of one colour at random places, kept where they bring another class closer; no gradients.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="black_box",
    settings={"norm": "linf", "queries": 5000, "restarts": 1, "passes": 8},
    choices={"norm": ("linf", "l2")},
)
