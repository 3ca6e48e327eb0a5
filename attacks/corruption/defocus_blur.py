"""Defocus blur: every pixel becomes the average over a disk, as behind a lens that is out of focus."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .constants import Sets, constants_of

CONSTANTS: Sets = {
    "digits_8": ((0.79,), (1.1,), (1.6,), (1.9,), (2.2,)),
    "cifar_32": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    "imagenet_224": ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
}
"""The radius, and the smoothing where there is one, by set, from level 1 on (see `constants`)."""


def defocus_blur(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None = None, *, constants: str
) -> tuple[Tensor, ...]:
    """Return the images averaged over a disk for each level; beyond the border they continue mirrored.

    A level with two constants is (radius, width of the smoothing) of ImageNet-C, a level with one is the radius of a
    disk whose edge covers pixels by their exact share. The published data sets are stored as 8-bit JPEG; that rounding
    is not applied. Raises ValueError for an unknown set or level, and for images too small for the disk.
    """
    kernels = []
    for level in severities:
        sizes = constants_of(CONSTANTS, constants, level)
        kernels.append(covered_disk(*sizes) if len(sizes) == 1 else smoothed_disk(*sizes))
    return tuple(average(samples.pixels, kernel).clamp(0, 1) for kernel in kernels)


def average(
    pixels: Float[Tensor, "batch channel height width"], kernel: Float[Tensor, "side side"]
) -> Float[Tensor, "batch channel height width"]:
    """Return the weighted average of the shifted images, with the same bits whatever else is in the batch.

    Elementwise products and sums in a fixed order; a convolution may choose another algorithm for another batch.
    """
    height, width = pixels.shape[-2:]
    side = kernel.shape[-1]
    reach = side // 2
    if reach >= min(height, width):
        raise ValueError(
            f"a blur that reaches {reach} pixels was asked for on images of {height} x {width}; "
            "choose a set of constants made for this size, or a lower level"
        )
    padded = F.pad(pixels, (reach, reach, reach, reach), mode="reflect")
    total = torch.zeros_like(pixels)
    for row, weights in enumerate(kernel.tolist()):
        for column, weight in enumerate(weights):
            if weight:
                total = total + weight * padded[..., row : row + height, column : column + width]
    return total


def covered_disk(radius: float) -> Float[Tensor, "side side"]:
    """Return a disk's weights: the share of it that lies in each pixel, exactly, summing to 1.

    >>> covered_disk(0.5).tolist()
    [[1.0]]
    """
    if radius <= 0.5:
        return torch.ones(1, 1)
    reach = math.ceil(radius - 0.5)
    edges = [i - 0.5 for i in range(-reach, reach + 2)]
    corner = torch.tensor([[_corner_area(x, y, radius) for x in edges] for y in edges], dtype=torch.float64)
    weights = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    return (weights / (math.pi * radius**2)).float()


def _corner_area(x: float, y: float, radius: float) -> float:
    """Return the area of the disk inside the rectangle from its centre to (x, y); odd in x and in y."""
    sign = math.copysign(1, x) * math.copysign(1, y)
    x, y = min(abs(x), radius), min(abs(y), radius)
    bend = min(math.sqrt(radius**2 - y**2), x)

    def under_arc(u: float) -> float:
        return (u * math.sqrt(radius**2 - u**2) + radius**2 * math.asin(u / radius)) / 2

    return sign * (bend * y + under_arc(x) - under_arc(bend))


def smoothed_disk(radius: float, smoothing: float) -> Float[Tensor, "side side"]:
    """Return ImageNet-C's disk: the whole pixels within the radius, then a small gaussian.

    As in the source, the gaussian spans 3 x 3 pixels up to radius 8 and 5 x 5 above, on a grid that reaches 8 pixels or
    the radius and is mirrored beyond, so that the sum is a little off 1 where the disk touches that edge (radii 8 and
    10). Weights below 1e-12 are dropped, and with them the empty border.
    """
    span, half = (1, 8) if radius <= 8 else (2, math.ceil(radius))
    line = torch.arange(-half, half + 1, dtype=torch.float64)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).double()
    taps = torch.exp(-(torch.arange(-span, span + 1, dtype=torch.float64) ** 2) / (2 * smoothing**2))
    gaussian = taps[:, None] * taps / taps.sum() ** 2
    mirrored = F.pad((disk / disk.sum())[None, None], (span, span, span, span), mode="reflect")
    smooth = F.conv2d(mirrored, gaussian[None, None])[0, 0]
    smooth[smooth < 1e-12] = 0
    reach = int((smooth.nonzero() - half).abs().max())
    return smooth[half - reach : half + reach + 1, half - reach : half + reach + 1].float()


DEFOCUS_BLUR = Shift(
    name="defocus_blur",
    apply=defocus_blur,
    family="corruption",
    source="Hendrycks and Dietterich 2019, arXiv:1903.12261, and github.com/hendrycks/robustness; digits_8 is our own",
    version=1,
    summary="Every pixel becomes the average over a disk.",
    severities=("1", "2", "3", "4", "5"),
    unit="level",
    settings={"constants": "digits_8"},
    choices={"constants": ("digits_8", "cifar_32", "imagenet_224")},
)
