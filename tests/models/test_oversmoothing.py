"""Maps and outputs taken apart into their uniform part and the rest, at the points that pencil and paper know."""

import pytest
import torch
from explicit.case import DIM, Case, visible
from explicit.oversmoothing import softmax_map, uniform
from explicit.softmax_family import softmax
from torch import Tensor, nn

from attnbench.models.attention import Attention
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.token_mean import token_mean
from attnbench.models.variants.attn_scale import AttnScaleAttention
from attnbench.models.variants.contranorm import ContraNormAttention
from attnbench.models.variants.feat_scale import FeatScaleAttention
from attnbench.models.variants.shaped import ShapedAttention

CASE = Case("softmax", softmax)
SITES = [(causal, mask) for causal in (False, True) for mask in (False, True)]
every_site = pytest.mark.parametrize(("causal", "mask"), SITES)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def attended(core: nn.Module, residual: Tensor, causal: bool = False) -> Tensor:
    """A layer whose output projection is zero: what is left is what the core does to the stream."""
    host = Attention(CASE.site(causal), core).double()
    draw_initial_values(host, 0)
    nn.init.zeros_(host.out.weight)
    y, _ = host(residual, residual, None, None, None, {})
    return residual + y


# The mean over tokens


@every_site
def test_the_mean_over_tokens_is_what_uniform_attention_returns(causal: bool, mask: bool) -> None:
    given = CASE.inputs(mask=mask)
    weights = uniform(visible(given, causal))
    close(token_mean(given.v, given.mask, causal).expand_as(given.v), weights[:, None] @ given.v)
    close(token_mean(given.x, given.mask, causal).expand_as(given.x), weights @ given.x)


def test_a_mean_in_half_precision_counts_beyond_256_tokens() -> None:
    x = torch.ones(1, 1001, 1, dtype=torch.bfloat16)
    for causal in (False, True):
        mean = token_mean(x, None, causal)
        assert mean.dtype == torch.bfloat16
        assert mean.eq(1).all()


def test_where_no_real_token_has_come_yet_the_mean_is_zero() -> None:
    x, mask = torch.full((1, 3, 1), 7.0), torch.tensor([[False, False, True]])
    assert token_mean(x, mask, True).flatten().tolist() == [0, 0, 7]
    assert token_mean(x, ~mask, False).flatten().tolist() == [7]
    assert token_mean(x, torch.zeros_like(mask), False).flatten().tolist() == [0]


# AttnScale


@every_site
def test_attn_scale_starts_as_softmax_and_can_be_uniform_or_sharpened(causal: bool, mask: bool) -> None:
    given, core = CASE.inputs(mask=mask), AttnScaleAttention(CASE.site(causal)).double()
    seen = visible(given, causal)
    plain, flat = softmax(given, seen, core), uniform(seen)[:, None] @ given.v
    close(core(given.q, given.k, given.v, given.ctx), plain)
    nn.init.constant_(core.weight, -1)
    close(core(given.q, given.k, given.v, given.ctx), flat)
    nn.init.constant_(core.weight, 1)
    close(core(given.q, given.k, given.v, given.ctx), 2 * plain - flat)


# FeatScale


@pytest.mark.parametrize(("form", "times"), [("paper", 1), ("released", 2)])
def test_feat_scale_scales_the_mean_and_the_rest_apart(form: str, times: int) -> None:
    core = FeatScaleAttention(CASE.site()._replace(dim=1), form).double()
    y = torch.tensor([[[1.0], [3.0], [8.0]]]).double()
    close(core.merge(y, y, y), y)
    nn.init.constant_(core.mean_scale, 0.5)
    close(core.merge(y, y, y), y + times * 0.5 * 4)
    nn.init.constant_(core.mean_scale, 0)
    nn.init.constant_(core.rest_scale, 0.5)
    close(core.merge(y, y, y), y + times * 0.5 * (y - 4))


def test_the_released_feat_scale_is_the_papers_with_twice_the_parameters() -> None:
    paper, released = (FeatScaleAttention(CASE.site(), form).double() for form in ("paper", "released"))
    y = CASE.inputs().x
    with torch.no_grad():
        for theirs, ours in zip(released.parameters(), paper.parameters(), strict=True):
            theirs.copy_(torch.linspace(-1, 1, DIM))
            ours.copy_(2 * theirs)
    close(released.merge(y, y, y), paper.merge(y, y, y))


# ContraNorm


def test_tokens_that_are_equal_keep_their_place_in_the_stream() -> None:
    stream = CASE.inputs().residual[:, :1].expand(-1, 5, -1)
    close(attended(ContraNormAttention(CASE.site(), strength=0.4), stream), stream)
    close(attended(ContraNormAttention(CASE.site(), strength=0.4, form="vit"), stream), 0.6 * stream)


@pytest.mark.parametrize(("causal", "first"), [(False, 1), (True, 0)])
def test_two_orthogonal_tokens_step_away_from_each_other(causal: bool, first: int) -> None:
    """Cosines 1 and 0 weigh e : 1, so each token reads the other by w = 1 / (1 + e)."""
    stream = torch.zeros(1, 2, DIM).double()
    stream[0, 0, 0], stream[0, 1, 1] = 2, 3
    s, w = 0.4, 1 / (1 + torch.e)
    expected = torch.zeros_like(stream)
    expected[0, 0, 0], expected[0, 0, 1] = 2 * (1 + s * w * first), -s * w * 3 * first
    expected[0, 1, 1], expected[0, 1, 0] = 3 * (1 + s * w), -s * w * 2
    close(attended(ContraNormAttention(CASE.site(causal), strength=s), stream, causal), expected)


def test_features_that_never_meet_leave_each_other_by_their_softmax() -> None:
    """With u' u the identity on the two used features, unused ones are alike to everything by exp(0)."""
    stream = torch.zeros(1, 2, DIM).double()
    stream[0, 0, 0], stream[0, 1, 1] = 2, 3
    s, total = 0.4, torch.e + DIM - 1
    expected = -s * stream.sum(-1, keepdim=True).expand_as(stream) / total
    expected = expected + stream * (1 + s) - s * stream * (torch.e - 1) / total
    close(attended(ContraNormAttention(CASE.site(), strength=s, axis="features"), stream), expected)


@pytest.mark.parametrize("axis", ["tokens", "features"])
def test_contranorm_without_strength_is_softmax_and_takes_a_stream_of_zeros(axis: str) -> None:
    stream = torch.zeros(1, 5, DIM, dtype=torch.float64, requires_grad=True)
    y = attended(ContraNormAttention(CASE.site(), strength=0.4, axis=axis), stream)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.square().sum() + y.sum(), stream)
    assert gradient.isfinite().all()
    given = CASE.inputs()
    close(attended(ContraNormAttention(CASE.site(), strength=0.0, axis=axis), given.residual), given.residual)


def test_contranorm_of_features_has_no_causal_form() -> None:
    with pytest.raises(ValueError, match=r"contranorm with axis 'features'.*causal.*allowed"):
        ContraNormAttention(CASE.site(causal=True), axis="features")


# Shaped


@every_site
def test_shaped_attention_starts_as_the_identity(causal: bool, mask: bool) -> None:
    given, core = CASE.inputs(mask=mask), ShapedAttention(CASE.site(causal)).double()
    close(core(given.q, given.k, given.v, given.ctx), given.v)


@every_site
def test_shaped_attention_with_drawn_queries_starts_as_identity_plus_centred_softmax(causal: bool, mask: bool) -> None:
    given, core = CASE.inputs(mask=mask), ShapedAttention(CASE.site(causal), start="drawn").double()
    seen = visible(given, causal)
    close(
        core(given.q, given.k, given.v, given.ctx),
        given.v + (softmax_map(given, seen) - uniform(seen)[:, None]) @ given.v,
    )


def test_softmax_is_a_shaped_attention() -> None:
    given, core = CASE.inputs(), ShapedAttention(CASE.site()).double()
    assert core.query_gain is not None
    for gain, value in ((core.skip, 0), (core.gain, 1), (core.centre, 0), (core.query_gain, 1)):
        nn.init.constant_(gain, value)
    close(core(given.q, given.k, given.v, given.ctx), softmax(given, visible(given, False), core))
