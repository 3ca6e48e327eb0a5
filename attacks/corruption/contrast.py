"""Contrast loss: every channel shrinks towards its own mean."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ..draw import Draw
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from ..shift import Shift
from .constants import Sets, constants_of

CONSTANTS: Sets = {
    "digits_8": ((0.58,), (0.39,), (0.28,), (0.2,), (0.13,)),
    "cifar_32": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "imagenet_224": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
}
"""The factor, by set, from level 1 on (see `constants`)."""


def contrast(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None = None, *, constants: str
) -> tuple[Tensor, ...]:
    """Return clip((x - m) c + m, 0, 1) for each level, m being the mean of each image's channel.

    The published data sets are stored as 8-bit JPEG; that rounding is not applied. Raises ValueError for an unknown set
    or level.
    """
    factors = [constants_of(CONSTANTS, constants, level)[0] for level in severities]
    mean = channel_mean(samples.pixels)
    return tuple(((samples.pixels - mean) * factor + mean).clamp(0, 1) for factor in factors)


def channel_mean(pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel 1 1"]:
    """Return each channel's mean, with the same bits whatever else is in the batch.

    >>> import torch
    >>> channel_mean(torch.tensor([[[[0.0, 0.25], [0.5, 0.25]]]])).item()
    0.25
    """
    flat = pixels.flatten(2)
    return (ordered_sum(flat) / flat.shape[-1]).to(pixels.dtype)[..., None, None]


CONTRAST = Shift(
    name="contrast",
    apply=contrast,
    family="corruption",
    source="Hendrycks and Dietterich 2019, arXiv:1903.12261, and github.com/hendrycks/robustness; digits_8 is our own",
    version=1,
    summary="Every channel shrinks towards its own mean.",
    severities=("1", "2", "3", "4", "5"),
    unit="level",
    settings={"constants": "digits_8"},
    choices={"constants": ("digits_8", "cifar_32", "imagenet_224")},
)
