"""Maps that are mixed, standardised or damped: against another library, and at the points that need no computer."""

import pytest
import torch
from explicit.case import BATCH, TOKENS, Case, visible
from explicit.softmax_family import softmax
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn

from attnbench.models.attention import Attention
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.site import Site
from attnbench.models.variants.paas import PositionAwareScalingAttention
from attnbench.models.variants.re_attention import ReAttention
from attnbench.models.variants.talking_heads import TalkingHeadsAttention

CASE = Case("softmax", softmax)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_talking_heads_with_biases_equal_caits_in_timm() -> None:
    heads, head_dim = 4, 3
    dim = heads * head_dim
    site = Site(0, 1, dim, heads, head_dim, TOKENS, 0, None, False, head_dim**-0.5)
    core = TalkingHeadsAttention(site, bias=True)
    host = Attention(site, core)
    draw_initial_values(host, 0)
    host = host.double()
    theirs = TalkingHeadAttn(dim, num_heads=heads, qkv_bias=True, dtype=torch.float64).eval()
    bias = torch.linspace(-1, 1, heads).double()
    assert core.bias is not None
    with torch.no_grad():
        theirs.qkv.weight.copy_(torch.cat([p.weight for p in (host.q, host.k, host.v)]))
        theirs.qkv.bias.zero_()
        theirs.proj.weight.copy_(host.out.weight)
        theirs.proj.bias.zero_()
        theirs.proj_l.weight.copy_(core.before.T)
        theirs.proj_w.weight.copy_(core.after.T)
        theirs.proj_w.bias.copy_(bias)
        core.bias.copy_(bias)
    x = torch.randn(BATCH, TOKENS, dim, generator=torch.Generator().manual_seed(0)).double()
    y, _ = host(x, x, None, None, None, {})
    close(y, theirs(x))
    assert theirs.proj_l.bias.any(), "a bias before the softmax cancels, so any will do"


@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_talk_to_themselves_are_softmax(causal: bool) -> None:
    core = TalkingHeadsAttention(CASE.site(causal), start="identity")
    draw_initial_values(core, 0)
    given = CASE.inputs(mask=True)
    close(core.double()(given.q, given.k, given.v, given.ctx), softmax(given, visible(given, causal), nn.Identity()))


def test_talking_heads_start_apart_from_softmax_and_from_each_other() -> None:
    core = TalkingHeadsAttention(CASE.site())
    draw_initial_values(core, 0)
    bound = (6 / (2 * CASE.heads)) ** 0.5
    assert core.before.abs().max() <= bound
    assert core.after.abs().max() <= bound
    assert not torch.equal(core.before, core.after)


# Re-attention


def maps(core: nn.Module, seed: int = 0) -> Tensor:
    """What multiplies the values: they span the tokens one by one, so the output is the matrix itself."""
    case = Case("softmax", softmax, head_dim=TOKENS)
    given = case.inputs(seed)
    eye = torch.eye(TOKENS).double().expand_as(given.v)
    y: Tensor = core.double()(given.q, given.k, eye, given.ctx)
    return y


WIDE = Case("softmax", softmax, head_dim=TOKENS).site()


def test_a_map_normed_by_sample_has_mean_0_and_variance_1_at_first() -> None:
    core = ReAttention(WIDE)
    draw_initial_values(core, 0)
    m = maps(core)
    close(m.mean((2, 3)), torch.zeros(BATCH, CASE.heads).double())
    torch.testing.assert_close(m.var((2, 3), correction=0), torch.ones(BATCH, CASE.heads).double(), rtol=0, atol=0.02)


def test_maps_normed_by_batch_share_a_mean_while_training_and_are_affine_at_inference() -> None:
    core = ReAttention(WIDE, norm="batch").double()
    draw_initial_values(core, 0)
    close(maps(core).mean((0, 2, 3)), torch.zeros(CASE.heads).double())
    core.eval()
    together = maps(core)
    given = Case("softmax", softmax, head_dim=TOKENS).inputs()
    eye = torch.eye(TOKENS).double().expand_as(given.v)
    alone = [core(g.q, g.k, eye[:1], g.ctx) for g in (given.row(0), given.row(1))]
    close(torch.cat(alone), together)


@pytest.mark.parametrize("causal", [False, True])
def test_re_attention_without_norm_starts_as_softmax(causal: bool) -> None:
    core = ReAttention(CASE.site(causal), norm="none")
    draw_initial_values(core, 0)
    given = CASE.inputs(mask=True)
    close(core.double()(given.q, given.k, given.v, given.ctx), softmax(given, visible(given, causal), core))


def test_a_normed_mixture_is_drawn_within_one_over_the_root_of_the_heads() -> None:
    core = ReAttention(CASE.site()._replace(heads=101))
    draw_initial_values(core, 0)
    assert 0.98 * 101**-0.5 < float(core.mixture.detach().abs().max()) <= 101**-0.5
    assert abs(float(core.mixture.detach().mean())) < 0.01


def test_the_size_of_the_mixture_does_not_matter_under_a_norm() -> None:
    small, large = (ReAttention(WIDE) for _ in range(2))
    for core, size in ((small, 10.0), (large, 1000.0)):
        draw_initial_values(core, 0)
        with torch.no_grad():
            core.mixture.mul_(size)
    torch.testing.assert_close(maps(small), maps(large), rtol=0, atol=1e-3)


@pytest.mark.parametrize("norm", ["sample", "batch"])
def test_a_normed_map_has_no_causal_form(norm: str) -> None:
    with pytest.raises(ValueError, match=rf"re_attention with norm '{norm}' under a causal mask.*allowed"):
        ReAttention(CASE.site(causal=True), norm=norm)


# Position-aware scaling


def test_factors_start_near_one_half_and_can_leave_plain_or_flat_attention() -> None:
    core = PositionAwareScalingAttention(CASE.site())
    draw_initial_values(core, 0)
    assert float(core.weight.detach().abs().max()) < 0.1
    assert core.weight.any()
    core, given = core.double(), CASE.inputs()
    seen = visible(given, False)
    for size, sharpness in ((0.0, 0.5), (1e3, 1.0), (-1e3, 0.0)):
        nn.init.constant_(core.weight, size)
        close(core(given.q, given.k, given.v, given.ctx), softmax(given._replace(q=sharpness * given.q), seen, core))


def test_a_key_of_length_zero_has_logit_zero() -> None:
    core = PositionAwareScalingAttention(CASE.site(), keys="unit").double()
    given = CASE.inputs()
    k = torch.zeros_like(given.k, requires_grad=True)
    logits = core.logits(given.q, k, given.v, given.ctx)
    assert not logits.any()
    assert torch.autograd.grad(logits.sum(), k)[0].isfinite().all()


def test_factors_for_other_places_are_refused() -> None:
    fewer = CASE.inputs().changed(lambda t: t[..., 1:, :])
    with pytest.raises(ValueError, match=rf"paas on {TOKENS - 1} tokens.*allowed: {TOKENS} tokens.*use"):
        PositionAwareScalingAttention(CASE.site()).double()(fewer.q, fewer.k, fewer.v, fewer.ctx)
