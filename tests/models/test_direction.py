"""Attention between directions: what lengths may not change, where the learned sharpness starts and ends."""

from math import log, log2, sqrt

import pytest
import torch
from explicit.case import Case, Inputs, visible
from explicit.direction import CASES
from explicit.distance import quest
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor, nn

from attnbench.models.attention import HasLogits
from attnbench.models.direction import direction

QK_NORM, QK_LAYER_NORM, COSINE, KDE, KDE_DOT = CASES
LENGTHS = torch.tensor([0.1, 0.7, 1, 2, 9, 30, 200]).double()[:, None]


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def logits(core: nn.Module, given: Inputs) -> Tensor:
    assert isinstance(core, HasLogits)
    return core.logits(given.q, given.k, given.v, given.ctx)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e3])
def test_a_direction_has_length_one_at_any_size(size: float) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(direction(size * x).square().sum(-1), torch.ones(4))


def test_the_gradient_of_a_direction_is_across_it_and_none_where_there_is_no_direction() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).requires_grad_()
    (gradient,) = torch.autograd.grad(direction(x)[0, 0], x)
    torch.testing.assert_close(gradient, torch.tensor([[16 / 125, -12 / 125], [0, 0]]))


@pytest.mark.parametrize("case", [QK_NORM, COSINE], ids=lambda c: c.id)
def test_lengthening_queries_and_keys_moves_nothing(case: Case) -> None:
    core, given = case.core(), case.inputs()
    close(run(core, given._replace(q=LENGTHS * given.q, k=LENGTHS.flip(0) * given.k)), run(core, given))


@pytest.mark.parametrize("case", [QK_NORM, COSINE, KDE, KDE_DOT], ids=lambda c: c.id)
def test_a_key_without_direction_has_logit_zero_and_a_finite_gradient(case: Case) -> None:
    core, given = case.core(), case.inputs()
    k = given.k.clone()
    k[:, :, 2] = 0
    given = given._replace(k=k).requiring_grad()
    assert not logits(core, given)[..., 2].any()
    for gradient in torch.autograd.grad(run(core, given).square().sum(), (given.q, given.k, given.v)):
        assert gradient.abs().max() < 1e3


# QK-norm


@pytest.mark.parametrize(("tokens", "gain"), [(7, log2(42)), (2, 1.0), (1, 1.0)])
def test_the_gain_starts_at_log2_of_the_pairs_of_tokens_and_is_one_number_a_layer(tokens: int, gain: float) -> None:
    core = QK_NORM.variant.core(QK_NORM.site()._replace(tokens=tokens))
    assert [p.numel() for p in core.parameters()] == [1]
    assert core.get_parameter("gain").item() == pytest.approx(gain)


def test_the_norms_of_queries_and_keys_have_a_gain_for_each_coordinate_and_no_bias() -> None:
    core = QK_LAYER_NORM.variant.core(QK_LAYER_NORM.site(), form="layer_norm")
    assert {n: list(p.shape) for n, p in core.named_parameters()} == {"norm_q.weight": [5], "norm_k.weight": [5]}
    given = QK_LAYER_NORM.inputs(size=1e3)
    assert 1 < logits(core.double(), given).abs().max() <= sqrt(5)


def test_layer_norm_ignores_what_is_added_to_all_coordinates() -> None:
    core, given = QK_LAYER_NORM.core(), QK_LAYER_NORM.inputs()
    close(run(core, given._replace(q=given.q + 3, k=given.k - LENGTHS)), run(core, given))


# Cosine


def test_cosine_attention_is_that_of_timms_swin_v2_whose_position_bias_is_flat() -> None:
    window = WindowAttention(dim=12, window_size=(2, 4), num_heads=3).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in window.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
        window.logit_scale[0] = 5
        window.cpb_mlp[2].weight.zero_()
        x = torch.randn(2, 8, 12, generator=g, dtype=torch.float64)
        bias = torch.cat((window.q_bias, torch.zeros(12).double(), window.v_bias))
        q, k, v = (x @ window.qkv.weight.T + bias).view(2, 8, 3, 3, 4).permute(2, 0, 3, 1, 4)
        core = COSINE.variant.core(COSINE.site(head_dim=4)).double()
        core.log_sharpness.copy_(window.logit_scale)
        given = Inputs(q, k, v, x, x, v, v)
        close(window.proj(run(core, given).transpose(1, 2).flatten(2)), window(x))


def test_the_temperature_of_a_head_starts_at_a_tenth() -> None:
    core, given = COSINE.variant.core(COSINE.site()).double(), COSINE.inputs()
    aligned = logits(core, given._replace(k=given.q)).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(aligned, torch.full_like(aligned, 10), rtol=1e-6, atol=0)


def test_the_temperature_of_a_head_ends_at_a_hundredth_without_gradient() -> None:
    core, given = COSINE.core(), COSINE.inputs()
    sharpness = core.get_parameter("log_sharpness")
    with torch.no_grad():
        sharpness.copy_(torch.tensor([log(99), log(101), 50], dtype=torch.float64).view(3, 1, 1))
    aligned = logits(core, given._replace(k=given.q)).diagonal(dim1=-2, dim2=-1)
    close(aligned, torch.tensor([99, 100, 100]).double().view(1, 3, 1).expand_as(aligned))
    (gradient,) = torch.autograd.grad(run(core, given).square().sum(), sharpness)
    assert gradient[0].abs() > 1e-9
    assert not gradient[1:].any()


# KDE


@pytest.mark.parametrize(("case", "factor"), [(KDE, 2), (KDE_DOT, 1)], ids=lambda c: c.id if isinstance(c, Case) else c)
def test_kernel_density_attention_is_quest_at_another_temperature(case: Case, factor: float) -> None:
    given, core = case.inputs(), case.core()
    cooler = given._replace(q=factor * given.q / sqrt(5))
    close(run(core, given), quest(cooler, visible(given, False), core))
