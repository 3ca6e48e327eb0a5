"""Outlier patches: a share of the patches is replaced by uniform noise."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift


def patch_outlier(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None = None, *, patch: int
) -> tuple[Tensor, ...]:
    """Return, for each rate, the images with that share of their patches replaced.

    Each image has its own order of patches and its own outliers, so that a patch hit at one rate is hit with the same
    content at every larger rate. The count is rate x patches, rounded half up; it may be none where the rate is below
    half a patch. Raises ValueError for rates outside [0, 1], and for images that the patches do not tile.
    """
    height, width = samples.pixels.shape[-2:]
    if patch < 1 or height % patch or width % patch:
        raise ValueError(
            f"patches of {patch} x {patch} do not tile images of {height} x {width}; choose a patch that divides both"
        )
    rows, columns = height // patch, width // patch
    counts = [count(rate, rows * columns) for rate in severities]
    device = samples.pixels.device
    order = draw.named("order").uniform(samples.ids, (rows * columns,), device).argsort(dim=1, stable=True)
    rank = order.argsort(1).view(-1, 1, rows, columns)
    rank = rank.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    outlier = draw.named("content").uniform(samples.ids, samples.pixels.shape[1:], device).to(samples.pixels)
    return tuple(torch.where(rank < hit, outlier, samples.pixels) for hit in counts)


def count(rate: str, patches: int) -> int:
    """Return how many patches a rate hits, rounded half up, in exact arithmetic.

    >>> [count(rate, 16) for rate in ("0", "1/16", "1/10", "1/2", "1")]
    [0, 1, 2, 8, 16]
    """
    share = Fraction(rate)
    if not 0 <= share <= 1:
        raise ValueError(f"a rate of patches lies between 0 and 1, got {rate!r}")
    return math.floor(share * patches + Fraction(1, 2))


PATCH_OUTLIER = Shift(
    name="patch_outlier",
    apply=patch_outlier,
    family="contamination",
    source="this project; vision transformers under corrupted patches: Gu et al. 2022, arXiv:2111.10659",
    version=1,
    summary="A share of the patches is replaced by uniform noise on [0, 1].",
    severities=("1/16", "1/8", "1/4", "1/2"),
    unit="share of patches",
    settings={"patch": 2},
)
