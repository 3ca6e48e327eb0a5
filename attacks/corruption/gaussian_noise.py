"""Gaussian noise: every pixel moves by an independent normal number, the same one at every level but for its size."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .constants import Sets, constants_of

CONSTANTS: Sets = {
    "digits_8": ((0.12,), (0.21,), (0.29,), (0.37,), (0.5,)),
    "cifar_32": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    "imagenet_224": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
}
"""The standard deviation, by set, from level 1 on (see `constants`)."""


def gaussian_noise(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None = None, *, constants: str
) -> tuple[Tensor, ...]:
    """Return clip(x + sigma n, 0, 1) for each level, with one n per sample that all levels share.

    The published data sets are stored as 8-bit JPEG; that rounding is not applied. Raises ValueError for an unknown set
    or level.
    """
    sigmas = [constants_of(CONSTANTS, constants, level)[0] for level in severities]
    noise = draw.normal(samples.ids, samples.pixels.shape[1:], samples.pixels.device)
    return tuple((samples.pixels + sigma * noise).clamp(0, 1) for sigma in sigmas)


GAUSSIAN_NOISE = Shift(
    name="gaussian_noise",
    apply=gaussian_noise,
    family="corruption",
    source="Hendrycks and Dietterich 2019, arXiv:1903.12261, and github.com/hendrycks/robustness; digits_8 is our own",
    version=1,
    summary="Every pixel moves by an independent normal number.",
    severities=("1", "2", "3", "4", "5"),
    unit="level",
    settings={"constants": "digits_8"},
    choices={"constants": ("digits_8", "cifar_32", "imagenet_224")},
)
