"""Gates, mixed values, differences and sigmoids at the points where pencil and paper know the answer."""

import math

import pytest
import torch
from explicit.case import BATCH, DIM, HEAD_DIM, HEADS, TOKENS, Case, Inputs, visible
from explicit.softmax_family import softmax
from timm.layers.diff_attention import DiffAttention
from torch import Tensor, nn

from attnbench.models.attention import Attention
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.site import Site
from attnbench.models.variants.differential import DifferentialAttention
from attnbench.models.variants.gated import GatedAttention
from attnbench.models.variants.sigmoid import SigmoidAttention
from attnbench.models.variants.value_residual import ValueResidualAttention

CASE = Case("softmax", softmax)
GIVEN = CASE.inputs()
PLAIN = softmax(GIVEN, visible(GIVEN, False), nn.Identity())
FLAT = GIVEN._replace(q=torch.zeros_like(GIVEN.q))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def run(core: nn.Module, given: Inputs = GIVEN) -> Tensor:
    y: Tensor = core.double()(given.q, given.k, given.v, given.ctx)
    return y


# Gated


@pytest.mark.parametrize(("form", "width"), [("elementwise", HEADS * HEAD_DIM), ("headwise", HEADS)])
def test_a_gate_without_weights_lets_half_through(form: str, width: int) -> None:
    core = GatedAttention(CASE.site(), form)
    assert [tuple(p.shape) for p in core.parameters()] == [(width, DIM)]
    nn.init.zeros_(core.gate.weight)
    close(run(core), PLAIN / 2)


def test_a_head_whose_gate_is_shut_says_nothing_and_one_whose_gate_is_open_says_all() -> None:
    core = GatedAttention(CASE.site(), "headwise")
    with torch.no_grad():
        core.gate.weight.zero_()[:, 0] = torch.tensor([-1e3, 0.0, 1e3])
    given = GIVEN._replace(x=torch.ones_like(GIVEN.x))
    y = run(core, given)
    assert not y[:, 0].any()
    close(y[:, 1], PLAIN[:, 1] / 2)
    close(y[:, 2], PLAIN[:, 2])


# Value residual


@pytest.mark.parametrize("mix", ["constant", "learned"])
def test_mixing_in_the_same_values_changes_nothing_at_first(mix: str) -> None:
    core = ValueResidualAttention(CASE.site(), mix)
    close(run(core, GIVEN._replace(first=GIVEN.v)), PLAIN)


@pytest.mark.parametrize("mix", ["constant", "learned"])
def test_layer_0_of_value_residual_is_softmax_and_learns_nothing_more(mix: str) -> None:
    core = ValueResidualAttention(CASE.site(layer=0), mix)
    assert not list(core.parameters())
    close(core(GIVEN.q, GIVEN.k, GIVEN.v, GIVEN.ctx._replace(first=None, previous=None)), PLAIN)


def test_a_learned_mixture_starts_at_the_constant_one() -> None:
    learned, constant = (ValueResidualAttention(CASE.site(), mix) for mix in ("learned", "constant"))
    close(run(learned), run(constant))
    assert sum(p.numel() for p in learned.parameters()) == 2
    assert not list(constant.parameters())


# Differential


@pytest.mark.parametrize("layer", [0, 1, 4])
def test_a_differential_layer_equals_timms_with_the_same_weights(layer: int) -> None:
    heads, head_dim = 4, 3
    dim = heads * head_dim
    site = Site(layer, 5, dim, heads, head_dim, TOKENS, 0, None, False, head_dim**-0.5)
    host = Attention(site, DifferentialAttention(site))
    draw_initial_values(host, 0)
    host = host.double()
    theirs = DiffAttention(dim, num_heads=heads // 2, qkv_bias=True, depth=layer, dtype=torch.float64).eval()
    core = host.core
    gain = torch.linspace(0.5, 2, 2 * head_dim, dtype=torch.float64)
    with torch.no_grad():
        theirs.qkv.weight.copy_(torch.cat([p.weight for p in (host.q, host.k, host.v)]))
        theirs.qkv.bias.zero_()
        theirs.proj.weight.copy_(host.out.weight)
        theirs.proj.bias.zero_()
        theirs.sub_norm.weight.copy_(gain)
        core.get_parameter("gain").copy_(gain)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            theirs.get_parameter(name).data = 5 * core.get_parameter(name).data
            core.get_parameter(name).data *= 5
    x = torch.randn(BATCH, TOKENS, dim, generator=torch.Generator().manual_seed(0)).double()
    y, _ = host(x, x, None, None, None, {})
    torch.testing.assert_close(y, theirs(x), rtol=0, atol=1e-6)
    assert y.abs().max() > 0.1


@pytest.mark.parametrize(("layer", "start"), [(0, 0.2), (10_000, 0.8)])
def test_the_subtraction_starts_weak_at_the_bottom_and_strong_at_the_top(layer: int, start: float) -> None:
    core = DifferentialAttention(Case("differential", softmax, heads=2).site(layer=layer))
    assert core.lambda_init == pytest.approx(start)


def test_the_vectors_behind_lambda_are_drawn_with_standard_deviation_one_tenth() -> None:
    core = DifferentialAttention(Case("differential", softmax, heads=2, head_dim=10_000).site())
    draw_initial_values(core, 0)
    for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
        assert float(core.get_parameter(name).detach().std()) == pytest.approx(0.1, rel=0.05)
    assert core.get_parameter("gain").eq(1).all()


def test_the_norm_gives_every_token_of_a_pair_the_same_size() -> None:
    case = Case("differential", softmax, heads=2)
    core = DifferentialAttention(case.site(layer=0))
    y = run(core, case.inputs(size=30))
    size = y.square().mean(dim=(1, 3)).sqrt()
    torch.testing.assert_close(size, torch.full_like(size, 1 - 0.2), rtol=0, atol=1e-6)


def test_an_odd_number_of_heads_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match=r"differential with 3 heads.*allowed.*use"):
        DifferentialAttention(CASE.site())


# Sigmoid


@pytest.mark.parametrize("bias", ["length", "visible"])
def test_flat_sigmoids_weigh_every_key_one_over_n_plus_one(bias: str) -> None:
    close(run(SigmoidAttention(CASE.site(), bias), FLAT), FLAT.v.sum(-2, keepdim=True).expand_as(FLAT.v) / (TOKENS + 1))


@pytest.mark.parametrize("bias", ["length", "visible"])
def test_under_a_causal_mask_only_the_visible_bias_follows_the_prefix(bias: str) -> None:
    n = torch.arange(1, TOKENS + 1).double()[:, None] if bias == "visible" else TOKENS
    core = SigmoidAttention(CASE.site(causal=True), bias)
    close(run(core, FLAT), FLAT.v.cumsum(-2) / (n + 1))


def test_a_sigmoid_ignores_what_the_other_keys_say() -> None:
    core = SigmoidAttention(CASE.site())
    louder = GIVEN.k.clone()
    louder[:, :, 3] *= 10
    v = GIVEN.v.clone()
    v[:, :, 3] = 0
    close(run(core, GIVEN._replace(k=louder, v=v)), run(core, GIVEN._replace(v=v)))


def test_one_key_of_known_logit_is_weighed_by_the_logistic_function() -> None:
    case = Case("sigmoid", softmax, tokens=1, heads=1, head_dim=1)
    q, k, v, weighed = (torch.tensor([[[[x]]]], dtype=torch.float64) for x in (2, 3, 5, 5 / (1 + math.exp(-6))))
    close(run(SigmoidAttention(case.site()), case.inputs(batch=1)._replace(q=q, k=k, v=v)), weighed)
