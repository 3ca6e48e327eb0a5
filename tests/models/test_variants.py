"""Every attention variant equals its textbook form, written here with explicit matrices and loops."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnbench.models import variants
from attnbench.models.attention import QKV, Attention, Calibrates, Context, DrawsNoise, HasLogits
from attnbench.models.initial_value import DrawsInitialValues, Generators, generator_for
from attnbench.models.site import Site
from attnbench.models.variant import Setting, Variant

BATCH, HEADS, TOKENS, HEAD_DIM, DIM = 2, 3, 7, 5, 11
SCALE = HEAD_DIM**-0.5
STRETCH = torch.tensor([[0.2, 1, 0.5, 0.9, 0.4], [1, 0.3, 0.6, 0.1, 0.8], [0.7, 0.25, 0.15, 1, 0.35]]).double()
SPREAD = torch.tensor([0.3, 1.7, 4.0]).double()


def modules() -> dict[str, ModuleType]:
    return {
        m.name: importlib.import_module(f"{variants.__name__}.{m.name}")
        for m in pkgutil.iter_modules(variants.__path__)
    }


def declarations() -> dict[str, Variant]:
    return {v.name: v for module in modules().values() for v in vars(module).values() if isinstance(v, Variant)}


class Inputs(NamedTuple):
    """What one layer's attention reads."""

    q: Tensor
    k: Tensor
    v: Tensor
    previous: Tensor
    first: Tensor
    metric: Tensor
    mask: Tensor | None = None

    def leaves(self) -> "Inputs":
        return Inputs(*(t.clone().requires_grad_() for t in self[:5]), self.metric, self.mask)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Apply a change to everything that has tokens."""
        return Inputs(*(change(t) for t in self[:5]), self.metric, None if self.mask is None else change(self.mask))

    @property
    def ctx(self) -> Context:
        batch, _, tokens, _ = self.q.shape
        x = torch.zeros(batch, tokens, DIM, dtype=self.q.dtype)
        first, previous = (QKV(torch.zeros_like(v), torch.zeros_like(v), v) for v in (self.first, self.previous))
        return Context(x, x, self.mask, first, previous, {"metric": self.metric})


def inputs(
    seed: int = 0,
    mask: bool = False,
    batch: int = BATCH,
    tokens: int = TOKENS,
    head_dim: int = HEAD_DIM,
    size: float = 1,
) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    drawn = [size * torch.randn(batch, HEADS, tokens, head_dim, generator=g, dtype=torch.float64) for _ in range(5)]
    metric = torch.rand(batch, HEADS, head_dim, generator=g, dtype=torch.float64)
    real = torch.ones(batch, tokens, dtype=torch.bool)
    for sample in range(batch):
        real[sample, 2 + sample :: 3] = False
    return Inputs(*drawn, metric, real if mask else None)


def visible(given: Inputs, causal: bool) -> Tensor:
    """[batch, query, key], True where the query may read the key."""
    batch, _, tokens, _ = given.q.shape
    seen = torch.ones(batch, tokens, tokens, dtype=torch.bool)
    for b in range(batch):
        for t in range(tokens):
            for s in range(tokens):
                seen[b, t, s] = (given.mask is None or bool(given.mask[b, s])) and (s <= t or not causal)
    return seen


def mixing(logits: Tensor, seen: Tensor) -> Tensor:
    """Row-normalised exponentials of the visible logits, [batch, head, query, key]."""
    weights = logits.exp() * seen[:, None]
    return weights / weights.sum(-1, keepdim=True)


def metric_logits(q: Tensor, k: Tensor, m: Tensor) -> Tensor:
    """q' diag(m) k / sqrt(d) with one full matrix for each query; m is [batch, head, query, dim]."""
    return SCALE * torch.einsum("bhtd,bhtde,bhse->bhts", q, torch.diag_embed(m), k)


def elliptical_metric(v: Tensor, before: Tensor, seen: Tensor, statistic: str, scaling: str) -> Tensor:
    """m of each query from the tokens it sees."""
    batch, heads, tokens, head_dim = v.shape
    rows = []
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                change = torch.stack([(v[b, h, s] - before[b, h, s]).abs() for s in range(tokens) if seen[b, t, s]])
                if statistic == "mean":
                    w = change.sum(0) / len(change)
                else:
                    w = change.sort(0).values[(len(change) - 1) // 2]
                rows.append(w / (w.max() if scaling == "max" else w.sum() / head_dim))
    return torch.stack(rows).view(batch, heads, tokens, head_dim)


def softmax(given: Inputs, seen: Tensor) -> Tensor:
    return mixing(SCALE * given.q @ given.k.mT, seen) @ given.v


def stretched(m: Tensor) -> Callable[[Inputs, Tensor], Tensor]:
    """Reference with one fixed diagonal for each head, `[head, dim]`."""

    def reference(given: Inputs, seen: Tensor) -> Tensor:
        every = m[None, :, None].expand_as(given.q)
        return mixing(metric_logits(given.q, given.k, every), seen) @ given.v

    return reference


def elliptical(statistic: str, scaling: str, gradient: str) -> Callable[[Inputs, Tensor], Tensor]:
    def reference(given: Inputs, seen: Tensor) -> Tensor:
        m = elliptical_metric(given.v, given.previous, seen, statistic, scaling)
        m = m.detach() if gradient == "stop" else m
        return mixing(metric_logits(given.q, given.k, m), seen) @ given.v

    return reference


def resampled(bottom: float) -> Callable[[Inputs, Tensor], Tensor]:
    def reference(given: Inputs, seen: Tensor) -> Tensor:
        m = bottom + (1 - bottom) * given.metric
        m = m / m.max(-1, keepdim=True).values
        return mixing(metric_logits(given.q, given.k, m[:, :, None].expand_as(given.q)), seen) @ given.v

    return reference


def l2(given: Inputs, seen: Tensor) -> Tensor:
    difference = given.q[:, :, :, None] - given.k[:, :, None]
    return mixing(-(difference**2).sum(-1) / HEAD_DIM**0.5, seen) @ given.v


def quest(given: Inputs, seen: Tensor) -> Tensor:
    return mixing(given.q @ (given.k / (given.k**2).sum(-1, keepdim=True).sqrt()).mT, seen) @ given.v


def neutreno(given: Inputs, seen: Tensor) -> Tensor:
    return softmax(given, seen) + 0.6 * (given.first - given.v)


def twicing(given: Inputs, seen: Tensor) -> Tensor:
    a = mixing(SCALE * given.q @ given.k.mT, seen)
    return (2 * a - a @ a) @ given.v


CALIBRATION = inputs(seed=99, batch=4)


def dataset_metric(rows: slice, scaling: str) -> Tensor:
    """m of the mean change over some calibration samples, [head, dim]."""
    w = (CALIBRATION.v - CALIBRATION.previous)[rows].abs().mean(dim=(0, 2))
    return w / (w.amax(-1, keepdim=True) if scaling == "max" else w.mean(-1, keepdim=True))


def matching_factor() -> Tensor:
    logits = SCALE * CALIBRATION.q @ CALIBRATION.k.mT
    centred = logits - logits.mean(-1, keepdim=True)
    return SPREAD / (centred**2).mean(dim=(0, 2, 3)).sqrt()


@dataclass(frozen=True)
class Case:
    """One variant with some settings, and what it must equal."""

    name: str
    reference: Callable[[Inputs, Tensor], Tensor]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    causal: bool = True
    frozen: Tensor | None = None

    @property
    def id(self) -> str:
        chosen = ",".join(f"{k}={v}" for k, v in self.settings.items())
        return f"{self.name}({chosen})" if chosen else self.name

    @property
    def variant(self) -> Variant:
        return declarations()[self.name]

    def core(self, causal: bool = False, layer: int = 1, head_dim: int = HEAD_DIM, **over: Setting) -> nn.Module:
        """The core in float64, not yet calibrated."""
        site = Site(layer, 3, DIM, HEADS, head_dim, TOKENS, 0, None, causal, head_dim**-0.5)
        measured = {"logit_spread": SPREAD} if "logit_spread" in self.variant.measured else {}
        core: nn.Module = self.variant.core(site, **{**self.variant.settings, **self.settings, **over}, **measured)
        return core.double()

    def ready(self, causal: bool = False, **over: Setting) -> nn.Module:
        """The core with its frozen quantities set."""
        core = self.core(causal, **over)
        if self.frozen is not None:
            core.get_buffer("frozen").copy_(self.frozen)
        if isinstance(core, Calibrates):
            core.calibrate(CALIBRATION.q, CALIBRATION.k, CALIBRATION.v, CALIBRATION.ctx)
        return core


ELLIPTICAL = [
    Case(
        "elliptical",
        elliptical(statistic, scaling, gradient),
        {"statistic": statistic, "scaling": scaling, "gradient": gradient},
        causal=statistic == "mean",
    )
    for statistic in ("mean", "median")
    for scaling in ("max", "mean")
    for gradient in ("stop", "open")
]
CASES = [
    Case("softmax", softmax),
    *ELLIPTICAL,
    Case("random_metric", stretched(STRETCH), frozen=STRETCH),
    Case("random_metric", resampled(0.0), {"draw": "resampled"}),
    Case("random_metric", resampled(0.3), {"draw": "resampled", "bottom": 0.3}),
    Case("static_metric", stretched(dataset_metric(slice(None), "max"))),
    Case("static_metric", stretched(dataset_metric(slice(None), "mean")), {"scaling": "mean"}),
    Case("cross_sample_metric", stretched(dataset_metric(slice(1), "max"))),
    Case("cross_sample_metric", stretched(dataset_metric(slice(1), "mean")), {"scaling": "mean"}),
    Case("softmax_matched", stretched(matching_factor()[:, None].expand(HEADS, HEAD_DIM))),
    Case("l2", l2),
    Case("neutreno", neutreno),
    Case("twicing", twicing),
    Case("quest", quest),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
every_elliptical = pytest.mark.parametrize("case", ELLIPTICAL, ids=lambda c: c.id)
every_metric_control = pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("static_metric", "cross_sample_metric")], ids=lambda c: c.id
)
SITES = [pytest.param(c, False, id=c.id) for c in CASES]
SITES += [pytest.param(c, True, id=f"{c.id}-causal") for c in CASES if c.causal]
every_site = pytest.mark.parametrize(("case", "causal"), SITES)
every_elliptical_site = pytest.mark.parametrize(
    ("case", "causal"), [site for site in SITES if "elliptical" in str(site.id)]
)
every_causal_case = pytest.mark.parametrize("case", [c for c in CASES if c.causal], ids=lambda c: c.id)
every_variant = pytest.mark.parametrize("name", sorted(declarations()))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def run(core: nn.Module, given: Inputs) -> Tensor:
    y: Tensor = core(given.q, given.k, given.v, given.ctx)
    return y


def gradients(y: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of a fixed random combination of the outputs; zero where nothing flows."""
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    found = torch.autograd.grad((weight * y).sum(), given[:5], allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(given[:5], found, strict=True)]


# What it computes


@every_site
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
def test_outputs_and_gradients_equal_those_of_the_explicit_matrices(case: Case, causal: bool, mask: bool) -> None:
    given = inputs(mask=mask).leaves()
    y, expected = run(case.ready(causal), given), case.reference(given, visible(given, causal))
    close(y, expected)
    for got, wanted in zip(gradients(y, given), gradients(expected, given), strict=True):
        close(got, wanted)


@every_site
def test_masked_tokens_might_as_well_be_absent(case: Case, causal: bool) -> None:
    given = inputs(batch=1, mask=True)
    assert given.mask is not None
    kept = given.mask[0].nonzero()[:, 0]
    fewer = given.changed(lambda t: t[:, kept] if t.dim() == 2 else t[:, :, kept])
    core = case.ready(causal)
    close(run(core, given)[:, :, kept], run(core, fewer._replace(mask=None)))


@every_causal_case
def test_a_causal_core_shows_no_token_to_those_before_it(case: Case) -> None:
    core, given, other = case.ready(causal=True), inputs(), inputs(seed=1)
    for moved in range(1, TOKENS):
        spliced = (torch.cat((a[:, :, :moved], b[:, :, moved:]), 2) for a, b in zip(given[:5], other[:5], strict=True))
        difference = (run(core, given) - run(core, Inputs(*spliced, given.metric))).abs().amax(dim=(0, 1, 3))
        assert (difference[:moved] <= 1e-12).all()
        assert (difference[moved:] > 1e-6).all()


@every_site
def test_a_sample_does_not_depend_on_its_batch(case: Case, causal: bool) -> None:
    assert not case.variant.batch_coupled
    core, given = case.ready(causal), inputs(mask=True)
    for row in range(BATCH):
        alone = Inputs(*(None if t is None else t[row : row + 1] for t in given))
        close(run(core, given)[row : row + 1], run(core, alone))


@every_case
def test_permuting_the_tokens_permutes_the_outputs(case: Case) -> None:
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    core, given = case.ready(), inputs()
    close(run(core, given.changed(lambda t: t[:, :, order])), run(core, given)[:, :, order])


@every_site
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
def test_a_core_never_leaves_the_fused_kernel(case: Case, causal: bool, mask: bool) -> None:
    core, given = case.ready(causal), inputs(mask=mask).leaves()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        gradients(run(core, given), given)


@every_case
def test_every_gradient_path_agrees_with_finite_differences_under_the_open_settings(case: Case) -> None:
    core, given = case.ready(**case.variant.open_settings), inputs(mask=True).leaves()

    def outputs(*tensors: Tensor) -> Tensor:
        return run(core, Inputs(*tensors, given.metric, given.mask))

    assert torch.autograd.gradcheck(outputs, given[:5], fast_mode=True)


# What it says about itself


def test_the_table_has_every_variant() -> None:
    assert {case.name for case in CASES} == set(declarations()) == set(modules())


@every_variant
def test_a_declaration_names_its_file_its_core_and_the_defaults_of_its_core(name: str) -> None:
    variant, module = declarations()[name], modules()[name]
    assert variant.core.__module__ == module.__name__
    parameters = dict(list(inspect.signature(variant.core).parameters.items())[1:])
    assert set(parameters) == set(variant.settings) | set(variant.measured)
    for setting, default in variant.settings.items():
        assert parameters[setting].default in (default, inspect.Parameter.empty)
    assert all(variant.settings[setting] in allowed for setting, allowed in variant.choices.items())
    assert all(value in variant.choices[setting] for setting, value in variant.open_settings.items())
    assert bool(variant.detaches) == bool(variant.open_settings)
    assert all(claim in declarations() for claim in variant.control_for)


@every_case
def test_a_core_keeps_what_its_declaration_promises(case: Case) -> None:
    core = case.core()
    assert isinstance(core, Calibrates) == case.variant.calibrates
    declared = {noise.name for noise in core.noise} if isinstance(core, DrawsNoise) else set()
    assert declared <= set(case.variant.noise)
    assert declared == ({"metric"} if case.settings.get("draw") == "resampled" else set())
    assert isinstance(core, HasLogits) == (case.variant.attention_map == "row_stochastic")
    assert not list(core.parameters())
    assert case.variant.causal == {"elliptical": "prefix"}.get(case.name, "yes")


@every_case
def test_a_core_reads_the_layers_that_it_declares_and_no_other(case: Case) -> None:
    def outcome(given: Inputs) -> Tensor:
        core = case.core()
        if isinstance(core, Calibrates):
            core.calibrate(given.q, given.k, given.v, given.ctx)
        return run(core, given)

    given, other = inputs(), inputs(seed=1)
    read = [
        layer
        for layer in ("first", "previous")
        if not torch.equal(outcome(given), outcome(given._replace(**{layer: getattr(other, layer)})))
    ]
    assert tuple(read) == case.variant.layer_state


@every_case
def test_the_matrix_on_the_values_is_of_the_declared_kind(case: Case) -> None:
    given = inputs(head_dim=TOKENS, size=2)
    given = given._replace(v=torch.eye(TOKENS).double().expand_as(given.v), first=torch.zeros_like(given.first))
    core = case.core(head_dim=TOKENS)
    if isinstance(core, Calibrates):
        core.calibrate(given.q, given.k, given.v, given.ctx)
    matrix = run(core, given)
    if case.variant.attention_map == "row_stochastic":
        assert (matrix >= 0).all()
        close(matrix.sum(-1), torch.ones(BATCH, HEADS, TOKENS).double())
    else:
        assert case.variant.attention_map == "signed"
        assert (matrix < -1e-3).any()


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in ("neutreno", "twicing")], ids=lambda c: c.id)
def test_the_softmax_of_the_logits_times_the_values_is_the_output(case: Case) -> None:
    core, given = case.ready(), inputs()
    assert isinstance(core, HasLogits)
    logits = core.logits(given.q, given.k, given.v, given.ctx)
    close(logits.softmax(-1) @ given.v, run(core, given))


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name == "neutreno" or c.name.endswith(("elliptical", "metric"))], ids=lambda c: c.id
)
def test_layer_0_of_what_reads_other_layers_and_of_its_controls_is_plain_softmax(case: Case) -> None:
    core, given = case.core(layer=0), inputs()
    bare = given.ctx._replace(first=None, previous=None, noise={})
    if isinstance(core, DrawsInitialValues):
        core.draw(Generators(0, "core"))
    if isinstance(core, Calibrates):
        core.calibrate(given.q, given.k, given.v, bare)
    assert not getattr(core, "noise", ())
    close(core(given.q, given.k, given.v, bare), softmax(given, visible(given, False)))


# Elliptical attention


@every_elliptical_site
@pytest.mark.parametrize("constant", [0.0, 0.7], ids=["no change", "even change"])
def test_a_change_that_is_even_over_coordinates_leaves_softmax(case: Case, causal: bool, constant: float) -> None:
    given = inputs(mask=True)
    given = given._replace(previous=given.v - constant * (1 + torch.arange(TOKENS)[:, None])).leaves()
    y = run(case.ready(causal), given)
    close(y, softmax(given, visible(given, causal)))
    assert all(g.isfinite().all() for g in gradients(y, given))


@every_elliptical
def test_a_constant_step_delta_would_cancel(case: Case) -> None:
    core, given = case.ready(), inputs()
    slower = given.previous + (given.v - given.previous) / 5
    assert isinstance(core, HasLogits)
    close(core.logits(given.q, given.k, slower, given.ctx), core.logits(given.q, given.k, given.v, given.ctx))


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_a_stopped_metric_gives_the_same_outputs_and_hides_its_gradient(statistic: str) -> None:
    case = next(c for c in ELLIPTICAL if c.settings["statistic"] == statistic)
    given = inputs().leaves()
    stopped, opened = run(case.ready(gradient="stop"), given), run(case.ready(gradient="open"), given)
    assert torch.equal(stopped, opened)
    assert not gradients(stopped, given)[3].any()
    assert gradients(opened, given)[3].abs().max() > 1e-3


def test_a_running_median_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"median.*causal.*allowed.*mean"):
        next(c for c in ELLIPTICAL if not c.causal).core(causal=True)


# Controls


@every_metric_control
def test_a_metric_control_is_plain_softmax_until_it_is_calibrated(case: Case) -> None:
    given = inputs()
    close(run(case.core(), given), softmax(given, visible(given, False)))


def test_a_matched_softmax_is_plain_until_it_is_calibrated_and_where_its_logits_are_flat() -> None:
    core, given = next(c for c in CASES if c.name == "softmax_matched").core(), inputs()
    assert isinstance(core, Calibrates)
    close(run(core, given), softmax(given, visible(given, False)))
    core.calibrate(torch.zeros_like(given.q), given.k, given.v, given.ctx)
    close(run(core, given), softmax(given, visible(given, False)))


@pytest.mark.parametrize("measured", [[1.0], [1.0, -1.0, 1.0], [1.0, float("nan"), 1.0]])
def test_a_matched_softmax_refuses_a_spread_that_cannot_be_met(measured: list[float]) -> None:
    site = Site(1, 3, DIM, HEADS, HEAD_DIM, TOKENS, 0, None, False, SCALE)
    with pytest.raises(ValueError, match=r"softmax_matched to 'elliptical' in layer 1.*allowed"):
        declarations()["softmax_matched"].core(site, donor="elliptical", logit_spread=torch.tensor(measured))


@every_metric_control
def test_calibration_is_written_without_gradient_into_the_state(case: Case) -> None:
    core, given = case.core(), inputs().leaves()
    assert isinstance(core, Calibrates)
    core.calibrate(given.q, given.k, given.v, given.ctx)
    frozen = core.state_dict()["frozen"]
    assert not core.get_buffer("frozen").requires_grad
    other = case.core()
    other.load_state_dict({"frozen": frozen})
    close(run(other, given), run(core, given))


@every_metric_control
def test_calibration_counts_real_tokens_only(case: Case) -> None:
    masked, full = case.core(), case.core()
    assert isinstance(masked, Calibrates)
    assert isinstance(full, Calibrates)
    given = inputs(mask=True)
    assert given.mask is not None
    doubtful = given._replace(v=torch.where(given.mask[:, None, :, None], given.v, 1e3))
    masked.calibrate(doubtful.q, doubtful.k, doubtful.v, doubtful.ctx)
    changes = [(given.v - given.previous)[b, :, given.mask[b]].abs().mean(1) for b in range(BATCH)]
    w = torch.stack(changes).mean(0) if case.name == "static_metric" else changes[0]
    size = w.amax(-1, keepdim=True) if case.settings.get("scaling", "max") == "max" else w.mean(-1, keepdim=True)
    close(masked.get_buffer("frozen"), w / size)


def test_a_static_metric_can_be_absorbed_into_the_query_projection() -> None:
    case = next(c for c in CASES if c.name == "static_metric")
    core = case.ready()
    site = Site(1, 3, DIM, HEADS, HEAD_DIM, TOKENS, 0, None, False, SCALE)
    static = Attention(site, core).double()
    plain = Attention(site, declarations()["softmax"].core(site)).double()
    plain.load_state_dict({k: v for k, v in static.state_dict().items() if not k.startswith("core")})
    m = dataset_metric(slice(None), "max").flatten()
    with torch.no_grad():
        plain.q.weight.mul_(m[:, None])
        plain.q.bias.mul_(m)
    x = torch.randn(BATCH, TOKENS, DIM, generator=torch.Generator().manual_seed(3)).double()
    previous = inputs().ctx.previous
    close(static(x, x, None, previous, previous, {})[0], plain(x, x, None, previous, previous, {})[0])


def test_a_fixed_random_metric_comes_from_the_seed_and_the_name_alone() -> None:
    case = next(c for c in CASES if c.name == "random_metric")
    first, again, other, deeper = (case.core(bottom=0.3) for _ in range(4))
    for core, seed, prefix in ((first, 4, "a.core"), (again, 4, "a.core"), (other, 5, "a.core"), (deeper, 4, "b.core")):
        torch.rand(3)
        assert isinstance(core, DrawsInitialValues)
        core.draw(Generators(seed, prefix))
    u = torch.rand(HEADS, HEAD_DIM, generator=generator_for(4, "a.core.frozen"))
    m = 0.3 + 0.7 * u
    torch.testing.assert_close(first.get_buffer("frozen"), (m / m.max(-1, keepdim=True).values).double())
    assert torch.equal(first.get_buffer("frozen"), again.get_buffer("frozen"))
    assert not torch.equal(first.get_buffer("frozen"), other.get_buffer("frozen"))
    assert not torch.equal(first.get_buffer("frozen"), deeper.get_buffer("frozen"))


def test_a_random_metric_that_may_not_vary_is_softmax() -> None:
    case, given = next(c for c in CASES if c.settings.get("draw") == "resampled"), inputs()
    close(run(case.core(bottom=1.0), given), softmax(given, visible(given, False)))


@pytest.mark.parametrize("bottom", [-0.1, 1.1])
def test_a_random_metric_refuses_a_bottom_outside_its_range(bottom: float) -> None:
    with pytest.raises(ValueError, match="allowed from 0 to 1"):
        next(c for c in CASES if c.name == "random_metric").core(bottom=bottom)


def test_a_key_of_length_zero_has_logit_zero_in_quest() -> None:
    case, given = next(c for c in CASES if c.name == "quest"), inputs()
    k = given.k.clone()
    k[:, :, 2] = 0
    given = given._replace(k=k).leaves()
    core = case.core()
    assert isinstance(core, HasLogits)
    assert not core.logits(given.q, given.k, given.v, given.ctx)[..., 2].any()
    assert all(g.abs().max() < 1e3 for g in gradients(run(core, given), given))


def test_lengthening_a_key_moves_nothing_in_quest() -> None:
    case, given = next(c for c in CASES if c.name == "quest"), inputs()
    longer = given.k * torch.linspace(0.1, 50, TOKENS)[:, None]
    close(run(case.core(), given._replace(k=longer)), run(case.core(), given))


def test_shifting_queries_and_keys_together_moves_nothing_in_l2() -> None:
    case, given = next(c for c in CASES if c.name == "l2"), inputs()
    close(run(case.core(), given._replace(q=given.q + 3, k=given.k + 3)), run(case.core(), given))
