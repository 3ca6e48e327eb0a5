"""Which patches of an image an attack takes: those that matter most to the model, or to its attention.

Patches are ranked once, on the clean image, and k patches are the first k: fewer lie inside more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..draw import Draw
from ..glass import Glass, Inside
from ..ordered_sum import ordered_sum
from ..samples import Samples
from ..shift import severity_value
from .insight import seen
from .look import Look

PLACES = ("saliency", "attention", "random", "corner")
"""How patches may be ranked."""

Scores = Float[Tensor, "batch patch"]
Chosen = Int[Tensor, "batch chosen"]


class Tiling(NamedTuple):
    """How patches tile an image; patch r * columns + c is the one in row r and column c."""

    rows: int
    """Patches from top to bottom."""
    columns: int
    """Patches from left to right."""
    side: int
    """Pixels along one side of a patch."""

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.rows * self.columns

    def spread(self, chosen: Chosen) -> Bool[Tensor, "batch 1 height width"]:
        """Return which pixels the chosen patches cover."""
        mask = torch.zeros(len(chosen), self.patches, dtype=torch.bool, device=chosen.device).scatter(1, chosen, True)
        wide = mask.view(-1, 1, self.rows, self.columns).repeat_interleave(self.side, 2)
        return wide.repeat_interleave(self.side, 3)

    def cut(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch patch pixel"]:
        """Return the numbers in each patch."""
        shape = (len(pixels), pixels.shape[1], self.rows, self.side, self.columns, self.side)
        return pixels.reshape(shape).permute(0, 2, 4, 1, 3, 5).reshape(len(pixels), self.patches, -1)


def tiling(samples: Samples, side: int, target: Glass | None = None) -> Tiling:
    """Return how patches of some pixels a side tile the images.

    Raises ValueError where they do not, or where the model's own patches, which it shows as tokens, are others.
    """
    height, width = samples.pixels.shape[-2:]
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"patches of {side} x {side} do not tile images of {height} x {width}; choose a patch that divides both"
        )
    found = Tiling(height // side, width // side, side)
    if target is not None and target.grid != (found.rows, found.columns):
        rows, columns = target.grid
        raise ValueError(
            f"patches of {side} x {side} make a grid of {found.rows} x {found.columns}, the model's is {rows} x "
            f"{columns}; set patch={height // rows}"
        )
    return found


def check_counts(severities: Sequence[str], tiles: Tiling) -> None:
    """Refuse severities that are no numbers of patches. Raises ValueError."""
    for text in severities:
        count = severity_value(text)
        if count != int(count) or not 0 <= count <= tiles.patches:
            raise ValueError(
                f"a severity of this attack is a whole number of patches from 0 to {tiles.patches}, got {text!r}"
            )


def check_place(place: str) -> None:
    """Refuse an unknown way to rank patches. Raises ValueError."""
    if place not in PLACES:
        raise ValueError(f"unknown place {place!r}; choose from {', '.join(PLACES)}")


def first(scores: Scores, count: int) -> Chosen:
    """Return the patches with the largest scores, the largest first; of equal ones the one with the smaller number."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count]


def place_scores(
    place: str, samples: Samples, draw: Draw, look: Look, tiles: Tiling, target: Glass | None, layer: int
) -> Scores:
    """Return how much each patch of the clean images asks to be attacked.

    `saliency` is the Euclidean length of the log-odds' gradient in the patch; `attention` is `attended`; `random` has a
    rank of its own for each image; `corner` prefers patches in their order, from the top left corner.
    """
    if place == "saliency":
        slope = look(samples, steepest=True).gradient
        assert slope is not None
        return ordered_sum(tiles.cut(slope).double() ** 2).sqrt()
    if place == "attention":
        assert target is not None
        return attended(look, target, samples, layer)
    if place == "random":
        return draw.named("place").uniform(samples.ids, (tiles.patches,)).to(samples.pixels)
    return torch.zeros(len(samples.ids), tiles.patches, device=samples.pixels.device)


def attended(look: Look, target: Glass, samples: Samples, layer: int) -> Scores:
    """Return how much each patch is attended to in a layer: the mean over heads and queries of softmax(logits)."""
    tokens = slice(target.prefix_tokens, target.prefix_tokens + target.grid[0] * target.grid[1])

    def read(inside: Inside) -> Tensor:
        shares = layer_logits(inside, layer).float().softmax(-1)[..., tokens]
        each = shares.permute(0, 3, 1, 2).flatten(2)
        return ordered_sum(each) / each.shape[-1]

    return seen(look, target, samples, read)


def layer_logits(inside: Inside, layer: int) -> Float[Tensor, "batch head query key"]:
    """Return the logits of the deepest layer, up to the given one, that shows any; negative ones count from the end.

    A layer beyond the last is the last. Raises ValueError where no layer up to the given one shows logits.
    """
    depth = len(inside.attention)
    last = min(layer, depth - 1) if layer >= 0 else depth + layer
    for logits in reversed(inside.attention[: last + 1]):
        if logits is not None:
            return logits
    raise ValueError(f"no layer up to layer {layer} of {depth} shows logits of its attention; choose a deeper one")
