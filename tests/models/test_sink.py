"""Attention that goes to no token: how much of it there is where the logits are known."""

import math

import pytest
import torch
from explicit.case import TOKENS, Case, Inputs, visible
from explicit.softmax_family import softmax
from torch import Tensor, nn

from attnbench.models.variants.learned_sink import LearnedSinkAttention
from attnbench.models.variants.softmax_plus_one import SoftmaxPlusOneAttention

CASE = Case("softmax", softmax)
GIVEN = CASE.inputs()
SITES = [(causal, mask) for causal in (False, True) for mask in (False, True)]
every_site = pytest.mark.parametrize(("causal", "mask"), SITES)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def run(core: nn.Module, given: Inputs = GIVEN) -> Tensor:
    y: Tensor = core.double()(given.q, given.k, given.v, given.ctx)
    return y


def sinking(causal: bool, logit: float) -> LearnedSinkAttention:
    core = LearnedSinkAttention(CASE.site(causal)).double()
    nn.init.constant_(core.sink, logit)
    return core


@every_site
def test_flat_logits_give_each_of_n_keys_one_share_of_n_plus_one(causal: bool, mask: bool) -> None:
    given = CASE.inputs(mask=mask)._replace(q=torch.zeros_like(GIVEN.q))
    seen = visible(given, causal).double()[:, None]
    close(run(SoftmaxPlusOneAttention(CASE.site(causal)), given), seen @ given.v / (1 + seen.sum(-1, keepdim=True)))


def test_a_single_key_is_weighed_by_the_logistic_function() -> None:
    case = Case("softmax_plus_one", softmax, tokens=1, heads=1, head_dim=1)
    q, k, v, weighed = (torch.tensor([[[[x]]]], dtype=torch.float64) for x in (2, -3, 5, 5 / (1 + math.exp(6))))
    close(run(SoftmaxPlusOneAttention(case.site()), case.inputs(batch=1)._replace(q=q, k=k, v=v)), weighed)


def test_low_logits_withhold_attention_and_high_ones_are_softmax() -> None:
    k = torch.ones_like(GIVEN.k)
    core = SoftmaxPlusOneAttention(CASE.site())
    assert not run(core, GIVEN._replace(q=-1e4 * k, k=k)).any()
    close(
        run(core, GIVEN._replace(q=1e4 * k, k=k)),
        GIVEN.v.mean(-2, keepdim=True).expand_as(GIVEN.v),
    )


@every_site
def test_a_learned_sink_starts_as_softmax_plus_one(causal: bool, mask: bool) -> None:
    given = CASE.inputs(mask=mask)
    close(run(LearnedSinkAttention(CASE.site(causal)), given), run(SoftmaxPlusOneAttention(CASE.site(causal)), given))


@every_site
def test_a_sink_far_below_the_logits_leaves_softmax_and_one_far_above_leaves_nothing(causal: bool, mask: bool) -> None:
    given = CASE.inputs(mask=mask)
    close(run(sinking(causal, -1e3), given), softmax(given, visible(given, causal), nn.Identity()))
    assert run(sinking(causal, 1e3), given).abs().max() < 1e-300


def test_a_sink_as_heavy_as_all_keys_takes_half() -> None:
    given = GIVEN._replace(q=torch.zeros_like(GIVEN.q))
    close(run(sinking(False, math.log(TOKENS)), given), given.v.mean(-2, keepdim=True).expand_as(given.v) / 2)
