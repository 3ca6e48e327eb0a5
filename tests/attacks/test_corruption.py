"""Corruptions against independent implementations that follow github.com/hendrycks/robustness."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from attnbench.attacks.corruption import contrast, gaussian_noise
from attnbench.attacks.corruption import defocus_blur as blur
from attnbench.attacks.corruption.constants import constants_of
from attnbench.attacks.corruption.contrast import CONTRAST, channel_mean
from attnbench.attacks.corruption.defocus_blur import DEFOCUS_BLUR, covered_disk, defocus_blur
from attnbench.attacks.corruption.gaussian_noise import GAUSSIAN_NOISE
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift

DRAW = Draw(0, "corruption", "shift")
CORRUPTIONS = (GAUSSIAN_NOISE, DEFOCUS_BLUR, CONTRAST)
CONSTANTS = {module.__name__.rpartition(".")[2]: module.CONSTANTS for module in (gaussian_noise, blur, contrast)}
SIZES = {"digits_8": 8, "cifar_32": 32, "imagenet_224": 32}
Image = NDArray[np.float64]


def images(side: int, count: int = 11) -> Samples:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))
    return Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(f"image-{i}" for i in range(count)))


def published_disk(radius: float, alias_blur: float) -> Image:
    half, side = (8, 3) if radius <= 8 else (int(radius), 5)
    grid = np.arange(-half, half + 1)
    x, y = np.meshgrid(grid, grid)
    disk = (x**2 + y**2 <= radius**2).astype(float)
    disk /= disk.sum()
    taps = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * alias_blur**2))
    taps /= taps.sum()
    return ndimage.correlate1d(ndimage.correlate1d(disk, taps, axis=0, mode="mirror"), taps, axis=1, mode="mirror")


def published(corruption: str, image: Image, constants: tuple[float, ...], noise: Image) -> Image:
    """Return one image of channels first, in [0, 1]."""
    if corruption == "gaussian_noise":
        return np.clip(image + noise * constants[0], 0, 1)
    if corruption == "contrast":
        means = image.mean(axis=(1, 2), keepdims=True)
        return np.clip((image - means) * constants[0] + means, 0, 1)
    kernel = published_disk(*constants)
    return np.clip(np.stack([ndimage.correlate(channel, kernel, mode="mirror") for channel in image]), 0, 1)


@pytest.mark.parametrize("level", ["1", "2", "3", "4", "5"])
@pytest.mark.parametrize("chosen", ["cifar_32", "imagenet_224"])
@pytest.mark.parametrize("shift", CORRUPTIONS, ids=lambda shift: shift.name)
def test_equals_the_published_corruption(shift: Shift, chosen: str, level: str) -> None:
    given = images(32, 3)
    (ours,) = shift.apply(given, (level,), DRAW, None, constants=chosen)
    noise = DRAW.normal(given.ids, given.pixels.shape[1:]).double().numpy()
    constants = constants_of(CONSTANTS[shift.name], chosen, level)
    theirs = [published(shift.name, x, constants, n) for x, n in zip(given.pixels.double().numpy(), noise, strict=True)]
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs), atol=1e-6)


@pytest.mark.parametrize("chosen", CONTRAST.choices["constants"])
@pytest.mark.parametrize("shift", CORRUPTIONS, ids=lambda shift: shift.name)
def test_an_image_is_corrupted_alike_alone_and_among_others(shift: Shift, chosen: str) -> None:
    given = images(SIZES[chosen])
    torch.manual_seed(1)
    among = shift.apply(given, shift.severities, DRAW, None, constants=chosen)
    torch.manual_seed(2)
    for rows in ([4], [10, 4, 0], [*range(7)]):
        apart = shift.apply(given.rows(rows), shift.severities, DRAW, None, constants=chosen)
        for few, all_ in zip(apart, among, strict=True):
            assert torch.equal(few, all_[rows])
    assert all(pixels.min() >= 0 and pixels.max() <= 1 for pixels in among)


@pytest.mark.parametrize("chosen", CONTRAST.choices["constants"])
@pytest.mark.parametrize("shift", CORRUPTIONS, ids=lambda shift: shift.name)
def test_higher_levels_move_images_further(shift: Shift, chosen: str) -> None:
    """CIFAR's published blurs 3 and 4 are nearly equal on white noise, so a rise is asked for from end to end."""
    given = images(SIZES[chosen])
    levels = shift.apply(given, shift.severities, DRAW, None, constants=chosen)
    moved = [(pixels - given.pixels).norm().item() for pixels in levels]
    assert moved[0] < moved[2] < moved[4]


def test_noise_is_the_same_at_every_level() -> None:
    given = images(8)._replace(pixels=torch.full((11, 1, 8, 8), 0.5))
    low, high = GAUSSIAN_NOISE.apply(given, ("1", "2"), DRAW, None, constants="cifar_32")
    inside = (high > 0) & (high < 1)
    torch.testing.assert_close((high - 0.5)[inside], (low - 0.5)[inside] * 0.06 / 0.04)


@pytest.mark.parametrize("radius", [0.3, 0.7, 1.0, 1.5, 1.9, 2.6])
def test_the_covered_disk_is_a_disk(radius: float) -> None:
    """Against counting 401 x 401 points of every pixel: a pixel's count is off by at most a line of points."""
    kernel = covered_disk(radius).double()
    reach = kernel.shape[-1] // 2
    points = (torch.arange(401, dtype=torch.float64) + 0.5) / 401 - 0.5
    line = torch.cat([points + i for i in range(-reach, reach + 1)])
    inside = (line[:, None] ** 2 + line**2 <= radius**2).double()
    counted = inside.unfold(0, 401, 401).unfold(1, 401, 401).mean((2, 3))
    assert (kernel - counted / counted.sum()).abs().max() < 2 / 401 / (math.pi * radius**2)
    assert abs(kernel.sum().item() - 1) < 1e-6


def test_by_hand() -> None:
    """A disk of radius 1/2 lies in one pixel, and a constant image has no contrast to lose."""
    given = images(8)
    flat = given._replace(pixels=torch.full((11, 1, 8, 8), 0.375))
    assert covered_disk(0.5).tolist() == [[1.0]]
    for shift in (DEFOCUS_BLUR, CONTRAST):
        for pixels in shift.apply(flat, shift.severities, DRAW, None, constants="digits_8"):
            torch.testing.assert_close(pixels, flat.pixels)
    assert channel_mean(torch.arange(15.0).reshape(1, 1, 3, 5)).item() == 7


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown level '6'; choose from 1, 2, 3, 4, 5"):
        CONTRAST.apply(images(8), ("6",), DRAW, None, constants="digits_8")
    with pytest.raises(ValueError, match=r"unknown constants 'digits'; choose from digits_8"):
        GAUSSIAN_NOISE.apply(images(8), ("1",), DRAW, None, constants="digits")
    with pytest.raises(ValueError, match=r"reaches 10 pixels was asked for on images of 8 x 8"):
        defocus_blur(images(8), ("5",), DRAW, constants="imagenet_224")


@pytest.mark.parametrize("shift", CORRUPTIONS, ids=lambda shift: shift.name)
def test_choices_are_the_sets_that_exist(shift: Shift) -> None:
    sets = CONSTANTS[shift.name]
    assert shift.choices["constants"] == tuple(sets)
    assert all(len(levels) == len(shift.severities) for levels in sets.values())
