"""Mixtures of Gaussians as keys: what remains where the components agree, or where one of them is switched off."""

import pytest
import torch
from explicit.case import Case, Inputs, mixing, visible
from explicit.mixture import CASES
from torch import Tensor, nn

from attnbench.models.initial_value import draw_initial_values, generator_for

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
every_site = pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
SHIFTED, UNEQUAL = CASES[0], CASES[1]


def gaussian(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, factor: float) -> Tensor:
    """Attention with exp(-factor |q - k|^2 / sqrt(d))."""
    distance = ((q[:, :, :, None] - k[:, :, None]) ** 2).sum(-1)
    return mixing(-factor * distance / q.shape[-1] ** 0.5, seen) @ v


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@every_site
def test_equal_components_are_one_gaussian_whatever_their_priors(causal: bool) -> None:
    core, given = SHIFTED.core(causal), SHIFTED.inputs(mask=True)
    shift = core.get_parameter("shifts.weight")
    with torch.no_grad():
        shift[1] = shift[0]
    expected = gaussian(given.q, given.k - shift[0], given.v, visible(given, causal), 0.5)
    close(run(core, given), expected)


@every_site
@pytest.mark.parametrize(("odds", "component", "factor"), [(60.0, 0, 0.5), (-60.0, 1, 1.5)])
def test_a_component_without_prior_is_not_read(odds: float, component: int, factor: float, causal: bool) -> None:
    core, given = UNEQUAL.core(causal), UNEQUAL.inputs(mask=True)
    with torch.no_grad():
        core.get_parameter("log_odds").fill_(odds)
    k = given.k - core.get_parameter("shifts.weight")[component]
    close(run(core, given), gaussian(given.q, k, given.v, visible(given, causal), factor))


def test_shifting_queries_and_keys_together_moves_nothing() -> None:
    for case in CASES[:2]:
        core, given = case.core(), case.inputs()
        close(run(core, given._replace(q=given.q + 3, k=given.k + 3)), run(core, given))


def test_priors_start_even_and_shifts_at_zero_and_at_what_the_seed_draws() -> None:
    core = SHIFTED.variant.core(SHIFTED.site())
    draw_initial_values(core, 6)
    assert not core.get_parameter("log_odds").any()
    shift = core.get_parameter("shifts.weight")
    assert not shift[0].any()
    drawn = torch.randn(1, 3, 1, 5, generator=generator_for(6, "shifts.weight"))
    assert torch.equal(shift[1:], 0.5 * drawn)


def test_separate_keys_start_from_a_projection_of_their_own() -> None:
    case = CASES[2]
    core = case.variant.core(case.site(), keys="separate")
    draw_initial_values(core, 6)
    weight = torch.empty(15, 11)
    nn.init.xavier_uniform_(weight, generator=generator_for(6, "second.weight"))
    assert torch.equal(core.get_parameter("second.weight"), weight)


@every_case
def test_two_tokens_worked_by_hand(case: Case) -> None:
    """One coordinate, q = 0: the kernels are exp(-k^2 / 2) and, where narrow, exp(-3 k^2 / 2), each at one half."""
    core = case.variant.core(case.site()._replace(heads=1, head_dim=1, dim=1, scale=1.0), **case.settings).double()
    with torch.no_grad():
        if case.settings["keys"] == "shifted":
            core.get_parameter("shifts.weight").copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
        else:
            core.get_parameter("second.weight").fill_(1)
            core.get_parameter("second.bias").fill_(-1)
    k = torch.tensor([1.0, 2.0]).double().view(1, 1, 2, 1)
    v = torch.tensor([0.0, 1.0]).double().view(1, 1, 2, 1)
    given = Inputs(torch.zeros_like(k), k, v, k[:, 0], k[:, 0], v, v)
    c = 1.5 if case.settings["widths"] == "unequal" else 0.5
    near, far = torch.tensor([-0.5, -c * 0]).exp().sum(), torch.tensor([-0.5 * 4, -c * 1]).exp().sum()
    torch.testing.assert_close(run(core, given)[0, 0, :, 0], (far / (near + far)).double().expand(2))
