"""A learned table of positions at another grid of patches, with the resampling rule as an explicit choice."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Resampling = Literal["bicubic", "antialiased", "dinov2"]
"""How a table goes to another grid; the three differ by percents in the features of a network.

`bicubic` weighs the four nearest rows and columns, also where the grid shrinks. `antialiased` widens the kernel where
it shrinks, which is what timm does when it loads weights. `dinov2` is `bicubic` with the step between samples that
DINOv2's own code takes, old / (new + 0.1) in place of old / new (github.com/facebookresearch/dinov2,
`interpolate_pos_encoding`), so its samples crowd towards the first row and column; the models with registers of that
repository take `antialiased`.
"""
RESAMPLINGS: tuple[Resampling, ...] = ("bicubic", "antialiased", "dinov2")
"""All of them."""


def square_grid(patches: int) -> tuple[int, int]:
    """Return the rows and columns of a square grid; ValueError where the patches form none.

    >>> square_grid(49)
    (7, 7)
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(
            f"a position table for {patches} patches has no square grid, so it cannot be resampled; "
            "build the network at the grid that the table is for"
        )
    return side, side


def resampled(
    table: Float[Tensor, "1 token dim"],
    prefix: int,
    old: tuple[int, int],
    new: tuple[int, int],
    how: Resampling,
) -> Float[Tensor, "1 new_token dim"]:
    """Return the table at another grid; the first `prefix` rows belong to no patch and stay as they are.

    Computed in float32 at least, returned in the table's dtype; the table itself where the grids are equal.

    >>> resampled(torch.ones(1, 1 + 9, 2), 1, (3, 3), (2, 5), "bicubic").shape
    torch.Size([1, 11, 2])
    """
    if old == new:
        return table
    antialias, dim = {"bicubic": False, "antialiased": True, "dinov2": False}[how], table.shape[-1]
    image = table[:, prefix:].reshape(1, *old, dim).permute(0, 3, 1, 2)
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    if how == "dinov2":
        steps = tuple((size + 0.1) / before for size, before in zip(new, old, strict=True))
        image = F.interpolate(image, scale_factor=steps, mode="bicubic", align_corners=False)
    else:
        image = F.interpolate(image, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    patches = image.permute(0, 2, 3, 1).reshape(1, -1, dim).to(table.dtype)
    return torch.cat((table[:, :prefix], patches), 1)
