"""Elliptical attention under the true distance, with unit keys, and how its forms meet each other."""

import pytest
import torch
from explicit.case import Case, Inputs, visible
from explicit.diagonal_metric import CASES, MAHALANOBIS
from explicit.distance import quest
from explicit.softmax_family import softmax
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnbench.models.attention import HasLogits

WITH_UNIT_KEYS = [c for c in CASES if c.name == "elliptical_quest"]
every_site = pytest.mark.parametrize(
    ("case", "causal"),
    [
        pytest.param(c, causal, id=f"{c.id}{'-causal' * causal}")
        for c in MAHALANOBIS
        for causal in (False, True)
        if causal <= c.causal
    ],
)


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def even(case: Case) -> Inputs:
    """Inputs whose values change by the same in all coordinates, so that m is one."""
    given = case.inputs(mask=True)
    return given._replace(previous=given.v - 0.7 * (1 + torch.arange(case.tokens)[:, None]))


@every_site
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
def test_the_true_distance_equals_the_explicit_matrices(case: Case, causal: bool, mask: bool) -> None:
    given, core = case.inputs(mask=mask).requiring_grad(), case.ready(causal)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        y = run(core, given)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
        got = torch.autograd.grad((weight * y).sum(), list(given.leaves.values()), allow_unused=True)
    expected = case.reference(given, visible(given, causal), core)
    wanted = torch.autograd.grad((weight * expected).sum(), list(given.leaves.values()), allow_unused=True)
    close(y, expected)
    for x, a, b in zip(given.leaves.values(), got, wanted, strict=True):
        close(torch.zeros_like(x) if a is None else a, torch.zeros_like(x) if b is None else b)


@every_site
def test_the_softmax_of_the_true_distance_is_the_map(case: Case, causal: bool) -> None:
    given, core = case.inputs(), case.ready(causal)
    assert isinstance(core, HasLogits)
    logits = core.logits(given.q, given.k, given.v, given.ctx)
    assert (logits <= 1e-12).all()
    hidden = ~visible(given, causal)[:, None]
    close(logits.masked_fill(hidden, -torch.inf).softmax(-1) @ given.v, run(core, given))


@pytest.mark.parametrize("case", MAHALANOBIS, ids=lambda c: c.id)
def test_shifting_queries_and_keys_together_moves_the_dot_product_and_not_the_distance(case: Case) -> None:
    given = case.inputs()
    shifted = given._replace(q=given.q + 3, k=given.k + torch.tensor(3.0))
    close(run(case.core(), shifted), run(case.core(), given))
    dot = case.core(form="dot")
    assert (run(dot, shifted) - run(dot, given)).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
def test_the_forms_agree_where_all_keys_are_equally_long_under_the_metric(causal: bool) -> None:
    """Corners of a cube: k' M k is the trace of M for all of them, whatever M."""
    for case in MAHALANOBIS:
        if causal <= case.causal:
            given = case.inputs()
            given = given._replace(k=given.k.sign())
            close(run(case.core(causal), given), run(case.core(causal, form="dot"), given))


def test_layer_0_of_the_true_distance_is_plain_softmax() -> None:
    for case in MAHALANOBIS:
        core, given = case.core(layer=0), case.inputs()
        bare = given.ctx._replace(first=None, previous=None)
        close(core(given.q, given.k, given.v, bare), softmax(given, visible(given, False), core))


def test_an_even_metric_leaves_the_euclidean_distance() -> None:
    for case in MAHALANOBIS:
        given = even(case)
        weights = (-((given.q[:, :, :, None] - given.k[:, :, None]) ** 2).sum(-1) / 2 / 5**0.5).exp()
        weights = weights * visible(given, False)[:, None]
        close(run(case.core(), given), weights / weights.sum(-1, keepdim=True) @ given.v)


@pytest.mark.parametrize("case", WITH_UNIT_KEYS, ids=lambda c: c.id)
def test_an_even_metric_leaves_quest_in_both_forms(case: Case) -> None:
    core, given = case.core(), even(case)
    close(run(core, given), quest(given, visible(given, False), core))


@pytest.mark.parametrize("case", WITH_UNIT_KEYS, ids=lambda c: c.id)
def test_layer_0_with_unit_keys_is_quest(case: Case) -> None:
    core, given = case.core(layer=0), case.inputs()
    bare = given.ctx._replace(first=None, previous=None)
    close(core(given.q, given.k, given.v, bare), quest(given, visible(given, False), core))


@pytest.mark.parametrize("case", WITH_UNIT_KEYS, ids=lambda c: c.id)
def test_lengthening_a_key_moves_nothing_with_unit_keys(case: Case) -> None:
    core, given = case.core(), case.inputs()
    longer = given.k * torch.linspace(0.1, 50, case.tokens)[:, None]
    close(run(core, given._replace(k=longer)), run(core, given))


@pytest.mark.parametrize("case", [c for c in WITH_UNIT_KEYS if c.settings["form"] == "dot"], ids=lambda c: c.id)
def test_unit_keys_make_elliptical_attention_the_same_up_to_the_temperature(case: Case) -> None:
    elliptical = next(c for c in CASES if c.name == "elliptical")
    given = case.inputs()
    unit = given._replace(k=given.k / (given.k**2).sum(-1, keepdim=True).sqrt())
    plain = elliptical.core(**{k: v for k, v in case.settings.items() if k != "form"})
    close(run(plain, unit._replace(q=unit.q * 5**0.5)), run(case.core(), given))
