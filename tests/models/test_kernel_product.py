"""The kernel of FourierFormer near its zeros and at zero, its two normalisations, and the slopes of LipsFormer."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from explicit.case import Case, Inputs
from explicit.kernel_product import CASES
from torch import Tensor, nn

from attnbench.models.sinc_kernel import log_sinc4, log_sinc4_kernel
from attnbench.models.variants.lipsformer import bounded

FOURIER, RELEASED = CASES[0], CASES[1]
LIPSFORMER, LIPSFORMER_RELEASED = CASES[3], CASES[4]


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


# sinc^4


def test_the_logarithm_of_sinc_to_the_fourth_is_numpys_on_both_sides_of_the_series() -> None:
    x = np.concatenate([np.geomspace(1e-6, 3, 60), [0.0299999, 0.0300001], np.linspace(3.3, 6.2, 20)])
    expected = 4 * np.log(np.abs(np.sinc(x / pi)))
    torch.testing.assert_close(log_sinc4(torch.from_numpy(x)), torch.from_numpy(expected), rtol=1e-9, atol=1e-15)


def test_the_slope_of_the_logarithm_is_that_of_the_cotangent() -> None:
    x = torch.tensor([1e-3, 0.02, 0.04, 0.5, 2, 4, -5]).double().requires_grad_()
    (slope,) = torch.autograd.grad(log_sinc4(x).sum(), x)
    torch.testing.assert_close(slope, 4 * (1 / x.tan() - 1 / x).detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_slope_are_finite_at_zero_and_at_the_zeros_of_sinc(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1e-30, pi, -2 * pi, 1e3 * pi, 1e12], dtype=dtype).requires_grad_()
    value = log_sinc4(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert not value[0]
    assert not slope[0]
    assert value[2] < -55


def test_the_kernel_keeps_no_matrix_for_each_coordinate_for_the_backward_pass() -> None:
    def kept(head_dim: int) -> int:
        g = torch.Generator().manual_seed(0)
        q, k = (torch.randn(1, 1, 32, head_dim, generator=g).requires_grad_() for _ in range(2))
        sizes: list[int] = []

        def keep(t: Tensor) -> Tensor:
            sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            log_sinc4_kernel(q, k, torch.ones(()))
        return sum(sizes)

    assert kept(64) < 8 * 32 * 32


# FourierFormer


def test_shifting_queries_and_keys_together_moves_nothing() -> None:
    core, given = FOURIER.core(), FOURIER.inputs()
    close(run(core, given._replace(q=given.q + 3, k=given.k + 3)), run(core, given))


def at_distances(case: Case, *distances: float) -> Inputs:
    """Queries at the origin; key j is `distances[j]` away in the first coordinate, and its value names it."""
    tokens = len(distances)
    k = torch.zeros(1, case.heads, tokens, case.head_dim).double()
    k[..., 0] = torch.tensor(distances)
    v = torch.eye(tokens, case.head_dim).double().expand(1, case.heads, -1, -1)
    x = torch.zeros(1, tokens, 11).double()
    return Inputs(torch.zeros_like(k), k, v, x, x, v, v)


def test_a_key_at_pi_over_the_radius_is_not_read_and_one_behind_it_is() -> None:
    core = FOURIER.core()
    radius = core.get_parameter("radius").item()
    weights = run(core, at_distances(FOURIER, 0, pi / radius, 1.5 * pi / radius))[0, 0, 0]
    far = (1 / (1.5 * pi)) ** 4
    torch.testing.assert_close(weights[:3], torch.tensor([1, 0, far]).double() / (1 + far), rtol=1e-6, atol=1e-12)


def test_the_released_normaliser_forgets_a_query_that_is_far_from_all_keys() -> None:
    released, paper = RELEASED.core(), RELEASED.core(form="paper")
    radius = released.get_parameter("radius").item()
    distance = 30.5 * pi / radius
    given = at_distances(RELEASED, distance, distance)
    kernel = (1 / (30.5 * pi)) ** 4
    expected = torch.tensor([1.0, 1, 0, 0, 0]).double() / 2
    torch.testing.assert_close(run(paper, given)[0, 0, 0], expected, rtol=1e-6, atol=0)
    share = 2 * kernel / (2 * kernel + 1e-6)
    torch.testing.assert_close(run(released, given)[0, 0, 0], share * expected, rtol=1e-6, atol=0)


def test_many_coordinates_do_not_underflow_in_float32() -> None:
    """The kernel itself is about 1e-500 here, far below the least float32."""
    case = Case("fourierformer", FOURIER.reference, head_dim=128)
    core = case.variant.core(case.site())
    given = case.inputs(size=30)
    given = given._replace(**{n: t.float() for n, t in given.leaves.items()}).requiring_grad()
    y = run(core, given)
    assert log_sinc4_kernel(given.q, given.k, torch.ones(())).max() < -500
    torch.testing.assert_close(run(core, given._replace(v=torch.ones_like(given.v))), torch.ones_like(y))
    assert torch.autograd.grad(y.square().sum(), given.q)[0].abs().max() > 1e-3


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_radius_must_be_positive(radius: float) -> None:
    with pytest.raises(ValueError, match=r"fourierformer with radius .*: allowed above 0"):
        FOURIER.core(radius=radius)


# LipsFormer


def test_the_normalisation_is_steepest_at_zero_and_finite_there() -> None:
    slope = torch.autograd.functional.jacobian(bounded, torch.zeros(3).double())
    assert isinstance(slope, Tensor)
    close(slope, 1e3 * torch.eye(3).double())
    x = torch.tensor([3.0, 4.0]).double()
    close(bounded(x), x / sqrt(25 + 1e-6))


@pytest.mark.parametrize("size", [0.0, 1e-8, 1.0, 1e3])
def test_no_output_of_the_papers_form_is_longer_than_nu(size: float) -> None:
    core, given = LIPSFORMER.core(), LIPSFORMER.inputs(size=size).requiring_grad()
    y = run(core, given)
    assert (y.square().sum(-1).sqrt() <= core.get_parameter("nu").abs()).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (given.q, given.k, given.v)))


def test_the_released_form_keeps_the_length_of_the_values() -> None:
    core, given = LIPSFORMER_RELEASED.core(), LIPSFORMER_RELEASED.inputs()
    close(run(core, given._replace(v=100 * given.v)), 100 * run(core, given))
    assert not list(core.parameters())
