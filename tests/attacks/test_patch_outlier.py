"""Outlier patches: exact counts, the same patches and contents at every larger rate."""

import pytest
import torch

from attnbench.attacks.contamination.patch_outlier import PATCH_OUTLIER, patch_outlier
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples

DRAW = Draw(0, "patch_outlier", "shift")


def images(count: int = 19, height: int = 8, width: int = 8) -> Samples:
    """Images at -1, so that every outlier shows."""
    pixels = torch.full((count, 3, height, width), -1.0)
    return Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(f"image-{i}" for i in range(count)))


def patches(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Return `[batch, patch, pixel]`."""
    cut = pixels.unfold(2, side, side).unfold(3, side, side)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def test_counts_are_exact_and_patches_are_hit_whole() -> None:
    given = images()
    rates = ("1/16", "1/8", "1/4", "1/2")
    for pixels, count in zip(patch_outlier(given, rates, DRAW, patch=2), (1, 2, 4, 8), strict=True):
        hit = patches(pixels, 2) >= 0
        assert torch.equal(hit.all(2), hit.any(2))
        assert (hit.all(2).sum(1) == count).all()


def test_larger_rates_keep_what_smaller_ones_replaced() -> None:
    low, high, whole = patch_outlier(images(), ("1/8", "1/2", "1"), DRAW, patch=2)
    assert torch.equal(torch.where(low >= 0, high, low), low)
    assert torch.equal(torch.where(high >= 0, whole, high), high)
    assert (whole >= 0).all()


def test_edges_of_the_rate() -> None:
    given = images()
    none, rounded_up, rounded_down = patch_outlier(given, ("0", "1/32", "0.031"), DRAW, patch=2)
    assert torch.equal(none, given.pixels)
    assert ((patches(rounded_up, 2) >= 0).all(2).sum(1) == 1).all()
    assert torch.equal(rounded_down, given.pixels)
    for wrong in ("-0.1", "1.1"):
        with pytest.raises(ValueError, match="between 0 and 1"):
            patch_outlier(given, (wrong,), DRAW, patch=2)


def test_every_place_is_hit_equally_often() -> None:
    """Each of 16 places is hit in 1600 images with probability 1/4: five standard deviations are 5 sqrt(n p q)."""
    (pixels,) = patch_outlier(images(1600), ("1/4",), DRAW, patch=2)
    hits = (patches(pixels, 2) >= 0).all(2).sum(0)
    assert (hits - 400).abs().max() < 5 * (1600 * 0.25 * 0.75) ** 0.5


def test_images_that_patches_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 3 do not tile images of 8 x 9"):
        patch_outlier(images(width=9), ("1/4",), DRAW, patch=3)


def test_an_image_is_hit_alike_alone_and_among_others() -> None:
    given = images(height=6, width=10)
    for alone, among in zip(
        PATCH_OUTLIER.apply(given.rows([5]), PATCH_OUTLIER.severities, DRAW, None, patch=2),
        PATCH_OUTLIER.apply(given, PATCH_OUTLIER.severities, DRAW, None, patch=2),
        strict=True,
    ):
        assert torch.equal(alone[0], among[5])
