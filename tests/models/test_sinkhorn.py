"""Sinkhorn attention where the answer is known: few and many iterations, and maps that are balanced from the start."""

import numpy as np
import pytest
import torch
from explicit.case import TOKENS, Case, Inputs, visible
from explicit.sinkhorn import CASES
from explicit.softmax_family import softmax
from torch import Tensor, nn

from attnbench.models.variants.sinkformer import SinkhornAttention
from attnbench.models.vit import VisionTransformerShape, build

CASE = CASES[0]


def close(a: Tensor, b: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def attention_map(iterations: int, given: Inputs) -> Tensor:
    """The values span the tokens one by one, so the output is the map."""
    eye = torch.eye(TOKENS).double().expand(*given.q.shape[:2], -1, -1)
    return run(SinkhornAttention(CASE.site(), iterations), given._replace(v=eye))


@pytest.mark.parametrize("mask", [False, True])
def test_one_iteration_is_softmax(mask: bool) -> None:
    given = CASE.inputs(mask=mask)
    core = SinkhornAttention(CASE.site(), 1)
    close(run(core, given), softmax(given, visible(given, False), core))


def test_many_iterations_reach_the_doubly_stochastic_scaling_that_numpy_finds() -> None:
    given = CASE.inputs()
    found = attention_map(2001, given)
    kernel = np.exp(CASE.scale * (given.q @ given.k.mT)[1, 2].numpy())
    left = right = np.ones(TOKENS)
    for _ in range(5000):
        left = 1 / (kernel @ right)
        right = 1 / (kernel.T @ left)
    close(found[1, 2], torch.from_numpy(left[:, None] * kernel * right), 1e-9)
    close(found.sum(-2), torch.ones((*found.shape[:2], TOKENS)).double(), 1e-9)
    close(found.sum(-1), torch.ones((*found.shape[:2], TOKENS)).double())


def test_the_columns_come_closer_to_1_with_every_round() -> None:
    given = CASE.inputs()
    off = [float((attention_map(n, given).sum(-2) - 1).abs().max()) for n in (1, 3, 9, 27)]
    assert off == sorted(off, reverse=True)
    assert off[-1] < off[0] / 100


def test_two_tokens_worked_by_hand() -> None:
    """Kernel [[1, 2], [1, 1]]: rows to [[1/3, 2/3], [1/2, 1/2]], columns by 6/5 and 6/7, rows again."""
    case = Case("sinkformer", softmax, heads=1, tokens=2, head_dim=2)
    q = torch.tensor([[0.0, 2**0.5], [0.0, 0.0]]).double()[None, None]
    k = torch.tensor([[0.0, 0.0], [0.0, np.log(2)]]).double()[None, None]
    eye = torch.eye(2).double()[None, None]
    given = case.inputs(batch=1)._replace(q=q, k=k, v=eye)
    expected = torch.tensor([[7 / 17, 10 / 17], [7 / 12, 5 / 12]]).double()
    close(run(SinkhornAttention(case.site(), 3), given)[0, 0], expected, 1e-7)


def test_a_map_whose_columns_are_balanced_stays_as_it_is() -> None:
    """Dot products that depend on the difference of places, around a circle, have equal row and column sums."""
    case = Case("sinkformer", softmax, heads=1, head_dim=2)
    angle = 2 * torch.pi * torch.arange(TOKENS).double() / TOKENS
    circle = 3 * torch.stack((angle.cos(), angle.sin()), -1)[None, None]
    given = case.inputs(batch=1)._replace(q=circle, k=circle)
    close(run(SinkhornAttention(case.site(), 5), given), run(SinkhornAttention(case.site(), 1), given))


def test_a_key_that_everybody_reads_is_read_as_much_as_the_others_in_the_end() -> None:
    given = CASE.inputs()
    loud = given.k.clone()
    loud[:, :, 3] = 0
    given = given._replace(q=given.q + 3, k=loud + 3 * (torch.arange(TOKENS) == 3)[:, None])
    read_by_softmax, read = (attention_map(n, given).mean(-2)[..., 3] for n in (1, 2001))
    assert (read_by_softmax > 0.9).all()
    close(read, torch.full_like(read, 1 / TOKENS), 1e-6)


def test_a_constant_added_to_one_keys_logits_is_taken_out_again() -> None:
    """q_0 is 1 everywhere, so k_0 adds a constant to the key's column, which dividing by the column's sum removes."""
    given = CASE.inputs()
    q = given.q.clone()
    q[..., 0] = 1
    shifted = given.k.clone()
    shifted[..., 0] += torch.arange(TOKENS)
    a, b = (attention_map(2001, given._replace(q=q, k=k)) for k in (given.k, shifted))
    close(a, b, 1e-8)


@pytest.mark.parametrize("iterations", [-1, 0, 2])
def test_iterations_that_would_not_end_on_rows_are_refused(iterations: int) -> None:
    with pytest.raises(ValueError, match=rf"sinkformer with {iterations} iterations: allowed.*set"):
        SinkhornAttention(CASE.site(), iterations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gradient", ["stop", "open"])
@pytest.mark.parametrize("mask", [False, True])
def test_outputs_and_gradients_stay_finite_at_extreme_inputs(gradient: str, dtype: torch.dtype, mask: bool) -> None:
    core = SinkhornAttention(CASE.site(), 5, gradient)
    given = CASE.inputs(mask=mask)
    for size in (0.0, 1e-8, 1e3):
        q, k, v = (x.to(dtype).requires_grad_() for x in (size * given.q, size * given.k, size * given.v))
        y = core(q, k, v, given.ctx)
        assert y.dtype == dtype
        assert y.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), (q, k, v)))


def test_a_network_learns_in_every_parameter_and_runs_under_autocast() -> None:
    model = build(SinkhornAttention, {}, VisionTransformerShape(image=8, patch=2, dim=12, depth=2, heads=3), 0)
    pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pixels).isfinite().all()
    model(pixels).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
