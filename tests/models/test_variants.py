"""Every attention variant equals its textbook form in explicit matrices and keeps what its declaration promises.

The textbook forms stand in `tests/explicit`, one module a kind; the rows of that table run through every test here.
"""

import inspect

import pytest
import torch
from explicit.case import LEAVES, TOKENS, Case, Inputs, declarations, modules, visible
from explicit.diagonal_metric import calibrated_metric
from explicit.softmax_family import softmax
from explicit.table import CASES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnbench.models.attention import Attention, Calibrates, DrawsNoise, HasLogits, Merges, Omits, Projects
from attnbench.models.initial_value import DrawsInitialValues, Generators, draw_initial_values, generator_for

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
SITES = [pytest.param(c, False, id=c.id) for c in CASES]
SITES += [pytest.param(c, True, id=f"{c.id}-causal") for c in CASES if c.causal]
every_site = pytest.mark.parametrize(("case", "causal"), SITES)
MASKED_SITES = [pytest.param(*s.values, m, id=f"{s.id}{'-mask' * m}") for s in SITES for m in (False, True)]
every_masked_site = pytest.mark.parametrize(
    ("case", "causal", "mask"),
    [s for s in MASKED_SITES if isinstance(s.values[0], Case) and s.values[0].masked >= s.values[2]],
)
every_causal_case = pytest.mark.parametrize("case", [c for c in CASES if c.causal], ids=lambda c: c.id)
every_variant = pytest.mark.parametrize("name", sorted(declarations()))
ELLIPTICAL = [c for c in CASES if c.name == "elliptical" and c.settings.get("form") != "mahalanobis"]
every_elliptical = pytest.mark.parametrize("case", ELLIPTICAL, ids=lambda c: c.id)
every_metric_control = pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("static_metric", "cross_sample_metric")], ids=lambda c: c.id
)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def gradients(y: Tensor, given: Inputs, module: nn.Module) -> list[Tensor]:
    """Gradients of a fixed random combination of the outputs by inputs and learned tensors; zero where none flows."""
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    wanted = [*given.leaves.values(), *module.parameters()]
    found = torch.autograd.grad((weight * y).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


# What it computes


@every_masked_site
def test_outputs_and_gradients_equal_those_of_the_explicit_matrices(case: Case, causal: bool, mask: bool) -> None:
    given, core = case.inputs(mask=mask).requiring_grad(), case.ready(causal)
    y, expected = run(core, given), case.reference(given, visible(given, causal), core)
    close(y, expected)
    for got, wanted in zip(gradients(y, given, core), gradients(expected, given, core), strict=True):
        close(got, wanted)


def layer(case: Case, causal: bool = False, **over: str | float | bool) -> Attention:
    """The whole attention around a core, its projections drawn, the core's learned tensors moved."""
    core = case.ready(causal, **over)
    state = {name: tensor.clone() for name, tensor in core.state_dict().items()}
    host = Attention(case.site(causal), core).double()
    draw_initial_values(host, 3)
    core.load_state_dict(state)
    return host


def attended(host: Attention, given: Inputs) -> Tensor:
    y, _ = host(given.x, given.residual, given.mask, given.ctx.first, given.ctx.previous, given.noise)
    return y


WHOLE = [
    s for s in MASKED_SITES if isinstance(s.values[0], Case) and s.values[0].whole and s.values[0].masked >= s.values[2]
]


@pytest.mark.parametrize(("case", "causal", "mask"), WHOLE)
def test_what_projects_or_merges_in_its_own_way_equals_its_textbook_form_as_a_layer(
    case: Case, causal: bool, mask: bool
) -> None:
    assert case.whole is not None
    given, host = case.inputs(mask=mask).requiring_grad(), layer(case, causal)
    y, expected = attended(host, given), case.whole(given, visible(given, causal), host)
    close(y, expected)
    for got, wanted in zip(gradients(y, given, host), gradients(expected, given, host), strict=True):
        close(got, wanted)


@every_case
def test_what_projects_or_merges_in_its_own_way_says_its_textbook_form_as_a_layer(case: Case) -> None:
    core = case.core()
    assert bool(case.whole) == isinstance(core, (Projects, Merges))
    assert not isinstance(core, Omits) or isinstance(core, Projects)


@pytest.mark.parametrize(
    ("case", "causal"),
    [s for s in SITES if isinstance(s.values[0], Case) and s.values[0].masked and s.values[0].variant.equivariant],
)
def test_masked_tokens_might_as_well_be_absent(case: Case, causal: bool) -> None:
    given = case.inputs(batch=1, mask=True)
    assert given.mask is not None
    kept = given.mask[0].nonzero()[:, 0]
    fewer = given.changed(lambda t: t[..., kept, :])._replace(mask=None)
    core = case.ready(causal)
    close(run(core, given)[:, :, kept], run(core, fewer))


@every_causal_case
def test_a_causal_core_shows_no_token_to_those_before_it(case: Case) -> None:
    core, given, other = case.ready(causal=True), case.inputs(), case.inputs(seed=1)
    for moved in range(1, case.tokens, max(case.tokens // 7, 1)):
        spliced = {
            n: torch.cat((t[..., :moved, :], other.leaves[n][..., moved:, :]), -2) for n, t in given.leaves.items()
        }
        difference = (run(core, given) - run(core, given._replace(**spliced))).abs().amax(dim=(0, 1, 3))
        assert (difference[:moved] <= 1e-12).all()
        assert (difference[moved:] > 1e-6).all()


@pytest.mark.parametrize("case", [c for c in CASES if not c.causal], ids=lambda c: c.id)
def test_what_has_no_causal_form_refuses_a_causal_mask_with_a_way_out(case: Case) -> None:
    with pytest.raises(ValueError, match=rf"{case.name}.*causal.*(use|set|allowed)"):
        case.core(causal=True)


@pytest.mark.parametrize("case", [c for c in CASES if not c.masked], ids=lambda c: c.id)
def test_what_knows_no_masked_tokens_refuses_them_with_a_way_out(case: Case) -> None:
    with pytest.raises(ValueError, match=rf"{case.name}.*mask.*(use|set|allowed|give)"):
        run(case.ready(), case.inputs(mask=True))


@every_site
def test_a_sample_does_not_depend_on_its_batch_unless_it_says_so(case: Case, causal: bool) -> None:
    settings = case.variant.coupling_settings
    coupled = bool(settings) and all(case.all_settings[k] == v for k, v in settings.items())
    core, given = case.ready(causal), case.inputs(mask=case.masked)
    alone = torch.cat([run(core, given.row(row)) for row in range(len(given.q))])
    together = run(core, given)
    if coupled or case.variant.batch_coupled:
        assert (alone - together).abs().max() > 1e-6
    else:
        close(alone, together)


@every_case
def test_permuting_the_tokens_permutes_the_outputs_exactly_where_it_says_so(case: Case) -> None:
    order = torch.randperm(case.tokens, generator=torch.Generator().manual_seed(1))
    core, given = case.ready(), case.inputs()
    difference = run(core, given.changed(lambda t: t[..., order, :])) - run(core, given)[:, :, order]
    assert bool(difference.abs().max() <= 1e-10) == case.variant.equivariant


@pytest.mark.parametrize(
    ("case", "causal", "mask"),
    [
        s
        for s in MASKED_SITES
        if isinstance(s.values[0], Case) and s.values[0].variant.cost == "fused" and s.values[0].masked >= s.values[2]
    ],
)
def test_what_says_that_it_is_fused_never_leaves_the_fused_kernel(case: Case, causal: bool, mask: bool) -> None:
    core, given = case.ready(causal), case.inputs(mask=mask).requiring_grad()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        gradients(run(core, given), given, core)


@every_case
def test_every_gradient_path_agrees_with_finite_differences_under_the_open_settings(case: Case) -> None:
    core, given = case.ready(**case.variant.open_settings), case.inputs(mask=case.masked).requiring_grad()

    def outputs(*tensors: Tensor) -> Tensor:
        return run(core, given._replace(**dict(zip(LEAVES, tensors, strict=True))))

    assert torch.autograd.gradcheck(outputs, tuple(given.leaves.values()), fast_mode=True)


@every_case
def test_the_default_settings_hide_gradient_exactly_where_the_declaration_says_so(case: Case) -> None:
    opening = case.variant.open_settings
    changed = {k: v for k, v in opening.items() if case.all_settings[k] != v}
    given = case.inputs().requiring_grad()
    shut, opened = case.ready(), case.ready(**opening)
    y, z = run(shut, given), run(opened, given)
    torch.testing.assert_close(y, z, rtol=0, atol=1e-12)
    differences = [
        (a - b).abs().max() for a, b in zip(gradients(y, given, shut), gradients(z, given, opened), strict=True)
    ]
    assert (max(differences) > 1e-6) == bool(changed)


# What it says about itself


def test_the_table_has_every_variant() -> None:
    assert {case.name for case in CASES} == set(declarations()) == set(modules())


@every_variant
def test_a_declaration_names_its_file_its_core_and_the_defaults_of_its_core(name: str) -> None:
    variant, module = declarations()[name], modules()[name]
    assert name == variant.name == module.__name__.rpartition(".")[2]
    assert variant.core.__module__ == module.__name__
    parameters = dict(list(inspect.signature(variant.core).parameters.items())[1:])
    assert set(parameters) == set(variant.settings) | set(variant.measured)
    for setting, default in variant.settings.items():
        assert parameters[setting].default in (default, inspect.Parameter.empty)
    assert all(variant.settings[setting] in allowed for setting, allowed in variant.choices.items())
    assert all(value in variant.choices[setting] for setting, value in variant.open_settings.items())
    assert all(value in variant.choices[setting] for setting, value in variant.coupling_settings.items())
    assert bool(variant.detaches) == bool(variant.open_settings)
    assert all(claim in declarations() for claim in variant.control_for)
    assert not variant.coupling_settings or not variant.batch_coupled
    assert (variant.causal == "no") == all(not c.causal for c in CASES if c.name == name)


@every_case
def test_a_core_keeps_what_its_declaration_promises(case: Case) -> None:
    core = case.core()
    assert isinstance(core, Calibrates) == case.variant.calibrates
    declared = {noise.name for noise in core.noise} if isinstance(core, DrawsNoise) else set()
    assert declared <= set(case.variant.noise)
    assert isinstance(core, HasLogits) == case.variant.logits
    assert not list(core.parameters()) or case.variant.extra_parameters != "none"


@every_variant
def test_noise_that_is_declared_is_drawn_by_some_settings(name: str) -> None:
    drawn = {n.name for c in CASES if c.name == name for n in getattr(c.core(), "noise", ())}
    assert drawn == set(declarations()[name].noise)


@every_case
def test_a_core_reads_the_layers_that_it_declares_and_no_other(case: Case) -> None:
    given, other, core = case.inputs(), case.inputs(seed=1), case.ready()
    read = [
        state
        for state in ("first", "previous")
        if not torch.equal(run(core, given), run(core, given._replace(**{state: getattr(other, state)})))
    ]
    assert set(read) <= set(case.variant.layer_state)
    if not case.variant.calibrates:
        assert set(read) == set(case.variant.layer_state) or case.settings


@pytest.mark.parametrize("case", [c for c in CASES if c.variant.attention_map != "implicit"], ids=lambda c: c.id)
def test_the_matrix_on_the_values_is_of_the_declared_kind(case: Case) -> None:
    """The values span the tokens one by one, so the output is the matrix itself."""
    kind = case.variant.attention_map
    given = case.inputs(head_dim=case.tokens, size=2)
    eye = torch.eye(case.tokens).double().expand_as(given.v)
    given = given._replace(v=eye, first=torch.zeros_like(eye), previous=given.previous)
    core = case.core(head_dim=case.tokens)
    if isinstance(core, Calibrates):
        core.calibrate(given.q, given.k, given.v, given.ctx)
    matrix = run(core, given)
    if kind == "row_stochastic":
        close(matrix.sum(-1), torch.ones(matrix.shape[:-1]).double())
    if kind in ("row_stochastic", "nonnegative"):
        assert (matrix >= -1e-15).all()
    else:
        assert (matrix < -1e-3).any()


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.core(), HasLogits)], ids=lambda c: c.id)
def test_the_softmax_of_the_logits_times_the_values_is_the_output(case: Case) -> None:
    core, given = case.ready(), case.inputs()
    assert isinstance(core, HasLogits)
    logits = core.logits(given.q, given.k, given.v, given.ctx)
    close(logits.softmax(-1) @ given.v, run(core, given))


PLAIN_AT_THE_BOTTOM = ("neutreno", "elliptical", "random_metric", "static_metric", "cross_sample_metric")


@pytest.mark.parametrize("case", [c for c in CASES if c.name in PLAIN_AT_THE_BOTTOM], ids=lambda c: c.id)
def test_layer_0_of_what_reads_other_layers_and_of_its_controls_is_plain_softmax(case: Case) -> None:
    core, given = case.core(layer=0), case.inputs()
    bare = given.ctx._replace(first=None, previous=None, noise={})
    if isinstance(core, Calibrates):
        core.calibrate(given.q, given.k, given.v, bare)
    assert not getattr(core, "noise", ())
    close(core(given.q, given.k, given.v, bare), softmax(given, visible(given, False), core))


@pytest.mark.parametrize("case", [c for c in CASES if c.variant.layer_state], ids=lambda c: c.id)
def test_what_reads_other_layers_runs_in_layer_0(case: Case) -> None:
    core, given = case.core(layer=0), case.inputs()
    assert (
        run(core, given).shape == core(given.q, given.k, given.v, given.ctx._replace(first=None, previous=None)).shape
    )


# Elliptical attention


@pytest.mark.parametrize(
    ("case", "causal"), [(c, causal) for c in ELLIPTICAL for causal in (False, True) if c.causal >= causal]
)
@pytest.mark.parametrize("constant", [0.0, 0.7], ids=["no change", "even change"])
def test_a_change_that_is_even_over_coordinates_leaves_softmax(case: Case, causal: bool, constant: float) -> None:
    given = case.inputs(mask=True)
    given = given._replace(previous=given.v - constant * (1 + torch.arange(TOKENS)[:, None])).requiring_grad()
    core = case.ready(causal)
    y = run(core, given)
    close(y, softmax(given, visible(given, causal), core))
    assert all(g.isfinite().all() for g in gradients(y, given, core))


@every_elliptical
def test_a_constant_step_delta_would_cancel(case: Case) -> None:
    core, given = case.ready(), case.inputs()
    slower = given.previous + (given.v - given.previous) / 5
    assert isinstance(core, HasLogits)
    close(core.logits(given.q, given.k, slower, given.ctx), core.logits(given.q, given.k, given.v, given.ctx))


def test_a_stopped_metric_hides_the_gradient_of_the_layer_before() -> None:
    case, previous = ELLIPTICAL[0], LEAVES.index("previous")
    given = case.inputs().requiring_grad()
    stopped, opened = case.ready(gradient="stop"), case.ready(gradient="open")
    assert not gradients(run(stopped, given), given, stopped)[previous].any()
    assert gradients(run(opened, given), given, opened)[previous].abs().max() > 1e-3


# Controls


@every_metric_control
def test_a_metric_control_is_plain_softmax_until_it_is_calibrated(case: Case) -> None:
    given, core = case.inputs(), case.core()
    close(run(core, given), softmax(given, visible(given, False), core))


def test_a_matched_softmax_is_plain_until_it_is_calibrated_and_where_its_logits_are_flat() -> None:
    case = next(c for c in CASES if c.name == "softmax_matched")
    core, given = case.core(), case.inputs()
    assert isinstance(core, Calibrates)
    close(run(core, given), softmax(given, visible(given, False), core))
    core.calibrate(torch.zeros_like(given.q), given.k, given.v, given.ctx)
    close(run(core, given), softmax(given, visible(given, False), core))


@pytest.mark.parametrize("measured", [[1.0], [1.0, -1.0, 1.0], [1.0, float("nan"), 1.0]])
def test_a_matched_softmax_refuses_a_spread_that_cannot_be_met(measured: list[float]) -> None:
    case = next(c for c in CASES if c.name == "softmax_matched")
    with pytest.raises(ValueError, match=r"softmax_matched to 'elliptical' in layer 1.*allowed"):
        case.variant.core(case.site(), donor="elliptical", logit_spread=torch.tensor(measured))


@every_metric_control
def test_calibration_is_written_without_gradient_into_the_state(case: Case) -> None:
    core, given = case.core(), case.inputs().requiring_grad()
    assert isinstance(core, Calibrates)
    core.calibrate(given.q, given.k, given.v, given.ctx)
    frozen = core.state_dict()["frozen"]
    assert not core.get_buffer("frozen").requires_grad
    other = case.core()
    other.load_state_dict({"frozen": frozen})
    close(run(other, given), run(core, given))


@every_metric_control
def test_calibration_counts_real_tokens_only(case: Case) -> None:
    masked = case.core()
    assert isinstance(masked, Calibrates)
    given = case.inputs(mask=True)
    assert given.mask is not None
    doubtful = given._replace(v=torch.where(given.mask[:, None, :, None], given.v, 1e3))
    masked.calibrate(doubtful.q, doubtful.k, doubtful.v, doubtful.ctx)
    changes = [(given.v - given.previous)[b, :, given.mask[b]].abs().mean(1) for b in range(len(given.q))]
    w = torch.stack(changes).mean(0) if case.name == "static_metric" else changes[0]
    size = w.amax(-1, keepdim=True) if case.settings.get("scaling", "max") == "max" else w.mean(-1, keepdim=True)
    close(masked.get_buffer("frozen"), w / size)


def test_a_static_metric_can_be_absorbed_into_the_query_projection() -> None:
    case, plain = (next(c for c in CASES if c.name == name) for name in ("static_metric", "softmax"))
    given, static, absorbed = case.inputs(), layer(case), layer(plain)
    m = calibrated_metric(slice(None), "max").flatten()
    with torch.no_grad():
        absorbed.q.weight.mul_(m[:, None])
        absorbed.q.bias.mul_(m)
    close(attended(static, given), attended(absorbed, given))


def test_a_fixed_random_metric_comes_from_the_seed_and_the_name_alone() -> None:
    case = next(c for c in CASES if c.name == "random_metric")
    first, again, other, deeper = (case.core(bottom=0.3) for _ in range(4))
    for core, seed, prefix in ((first, 4, "a.core"), (again, 4, "a.core"), (other, 5, "a.core"), (deeper, 4, "b.core")):
        torch.rand(3)
        assert isinstance(core, DrawsInitialValues)
        core.draw(Generators(seed, prefix))
    u = torch.rand(case.heads, case.head_dim, generator=generator_for(4, "a.core.frozen"))
    m = 0.3 + 0.7 * u
    torch.testing.assert_close(first.get_buffer("frozen"), (m / m.max(-1, keepdim=True).values).double())
    assert torch.equal(first.get_buffer("frozen"), again.get_buffer("frozen"))
    assert not torch.equal(first.get_buffer("frozen"), other.get_buffer("frozen"))
    assert not torch.equal(first.get_buffer("frozen"), deeper.get_buffer("frozen"))


def test_a_random_metric_that_may_not_vary_is_softmax() -> None:
    case = next(c for c in CASES if c.settings.get("draw") == "resampled")
    given, core = case.inputs(), case.core(bottom=1.0)
    close(run(core, given), softmax(given, visible(given, False), core))


@pytest.mark.parametrize("bottom", [-0.1, 1.1])
def test_a_random_metric_refuses_a_bottom_outside_its_range(bottom: float) -> None:
    with pytest.raises(ValueError, match="allowed from 0 to 1"):
        next(c for c in CASES if c.name == "random_metric").core(bottom=bottom)


# Keys and distances


def test_a_key_of_length_zero_has_logit_zero_in_quest() -> None:
    case = next(c for c in CASES if c.name == "quest")
    given = case.inputs()
    k = given.k.clone()
    k[:, :, 2] = 0
    given = given._replace(k=k).requiring_grad()
    core = case.core()
    assert isinstance(core, HasLogits)
    assert not core.logits(given.q, given.k, given.v, given.ctx)[..., 2].any()
    assert all(g.abs().max() < 1e3 for g in gradients(run(core, given), given, core))


def test_lengthening_a_key_moves_nothing_in_quest() -> None:
    case = next(c for c in CASES if c.name == "quest")
    given, core = case.inputs(), case.core()
    longer = given.k * torch.linspace(0.1, 50, TOKENS)[:, None]
    close(run(core, given._replace(k=longer)), run(core, given))


def test_shifting_queries_and_keys_together_moves_nothing_in_l2() -> None:
    case = next(c for c in CASES if c.name == "l2")
    given, core = case.inputs(), case.core()
    close(run(core, given._replace(q=given.q + 3, k=given.k + 3)), run(core, given))
