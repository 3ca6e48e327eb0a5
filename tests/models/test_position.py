"""A position table at another grid: closed forms, and cubic convolution written out with numpy."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attnbench.models.position import RESAMPLINGS, Resampling, resampled, square_grid

GRIDS = [((5, 7), (3, 4)), ((5, 7), (8, 11)), ((7, 5), (2, 13)), ((5, 3), (5, 2))]
every_rule = pytest.mark.parametrize("how", RESAMPLINGS)


def table(old: tuple[int, int], prefix: int = 2, dim: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(
        1, prefix + old[0] * old[1], dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).to(dtype)


def kernel(a: float) -> Callable[[float], float]:
    """Keys' cubic convolution: value 1 at 0, 0 at the other integers, 0 from 2 on."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    return weight


def matrix(old: int, new: int, how: Resampling) -> np.ndarray:
    """Weights of one axis, [new, old]; outside the axis plain rules repeat the border, antialiasing leaves it out."""
    step = old / (new + 0.1) if how == "dinov2" else old / new
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * step
        if how == "antialiased":
            wide = max(step, 1.0)
            keys = kernel(-0.5)
            for j in range(old):
                weights[i, j] = keys((j + 0.5 - centre) / wide)
            weights[i] /= weights[i].sum()
        else:
            keys = kernel(-0.75)
            at = centre - 0.5
            for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                weights[i, min(max(j, 0), old - 1)] += keys(at - j)
    return weights


@every_rule
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_the_patches_are_convolved_along_rows_and_columns(
    old: tuple[int, int], new: tuple[int, int], how: Resampling
) -> None:
    given = table(old)
    rows, columns = matrix(old[0], new[0], how), matrix(old[1], new[1], how)
    image = given[0, 2:].numpy().reshape(*old, 3)
    wanted = np.einsum("ni,ijd,mj->nmd", rows, image, columns).reshape(-1, 3)
    got = resampled(given, 2, old, new, how)
    np.testing.assert_allclose(got[0, 2:].numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(got[:, :2], given[:, :2])


@every_rule
def test_an_unchanged_grid_leaves_the_table_as_it_is(how: Resampling) -> None:
    given = table((5, 7))
    assert torch.equal(resampled(given, 2, (5, 7), (5, 7), how), given)


@every_rule
def test_a_constant_table_stays_constant(how: Resampling) -> None:
    got = resampled(torch.full((1, 35, 2), 1.5, dtype=torch.float64), 0, (5, 7), (3, 11), how)
    torch.testing.assert_close(got, torch.full((1, 33, 2), 1.5, dtype=torch.float64))


def test_a_third_of_the_grid_is_every_third_patch() -> None:
    """Odd factors sample at the centres, where a cubic kernel is 1 and its neighbours 0."""
    given = table((9, 15), prefix=0)
    got = resampled(given, 0, (9, 15), (3, 5), "bicubic").reshape(3, 5, 3)
    torch.testing.assert_close(got, given.reshape(9, 15, 3)[1::3, 1::3])


def test_half_of_a_linear_ramp_is_the_ramp_at_the_midpoints() -> None:
    """Even factors sample midway, where the weights are even: exact for straight lines away from the border."""
    rows, columns = torch.meshgrid(
        torch.arange(12, dtype=torch.float64), torch.arange(8, dtype=torch.float64), indexing="ij"
    )
    ramp = (2 * rows - 3 * columns + 1).reshape(1, 96, 1)
    got = resampled(ramp, 0, (12, 8), (6, 4), "bicubic").reshape(6, 4)
    for i, j in product(range(1, 5), range(1, 3)):
        assert got[i, j].item() == pytest.approx(2 * (2 * i + 0.5) - 3 * (2 * j + 0.5) + 1)


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_torch_agrees(old: tuple[int, int], new: tuple[int, int]) -> None:
    given = table(old, prefix=0)
    wanted = F.interpolate(given.reshape(1, *old, 3).permute(0, 3, 1, 2), new, mode="bicubic", antialias=False)
    assert torch.equal(resampled(given, 0, old, new, "bicubic"), wanted.flatten(2).transpose(1, 2))


def test_the_rules_differ_where_a_grid_shrinks() -> None:
    got = [resampled(table((5, 7)), 2, (5, 7), (3, 4), how) for how in RESAMPLINGS]
    assert all((a - b).abs().max() > 0.05 for a, b in zip(got, (*got[1:], got[0]), strict=True))


def test_half_precision_is_resampled_in_single() -> None:
    given = table((5, 7), dtype=torch.bfloat16)
    got = resampled(given, 2, (5, 7), (3, 4), "bicubic")
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, resampled(given.float(), 2, (5, 7), (3, 4), "bicubic").bfloat16())


def test_patches_that_form_no_square_are_refused() -> None:
    assert square_grid(1369) == (37, 37)
    with pytest.raises(ValueError, match="35 patches has no square grid"):
        square_grid(35)
