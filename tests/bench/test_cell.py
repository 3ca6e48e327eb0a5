"""One cell: what is measured, what is kept by sample, and what makes a number invalid."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import JUDGE_PASSES, Samples
from attnbench.attacks.shift import Shift
from attnbench.bench.ball import fault, perturbation
from attnbench.bench.catalog import Entry, open_catalog
from attnbench.bench.cell import NotANumber, fill, fill_cost, subsample
from attnbench.bench.target import ModelTarget
from attnbench.models.noise import Noise
from attnbench.models.variants.softmax import SOFTMAX, SoftmaxAttention
from attnbench.models.vit import VisionTransformerShape, build

SHAPE = VisionTransformerShape(dim=12, depth=2, heads=2, classes=3, mlp_ratio=2.0)


def samples(n: int) -> Samples:
    generator = torch.Generator().manual_seed(7)
    pixels = torch.rand(n, 1, 8, 8, generator=generator)
    return Samples(pixels, torch.arange(n) % 3, tuple(f"s{i}" for i in range(n)))


def shift(apply: Any, **fields: Any) -> Entry[Shift]:
    plain = {"family": "corruption", "source": "", "version": 1, "summary": "", "severities": ("1",), "unit": ""}
    fields = {**plain, **fields}
    return Entry(Shift(name="probe", apply=apply, **fields), {}, "probe", {})


def metrics(*names: str) -> list[Any]:
    return [open_catalog().metric(name).value for name in names]


def unmoved(batch: Samples, severities: Sequence[str], draw: Draw, target: Any) -> tuple[Tensor, ...]:
    return tuple(batch.pixels for _ in severities)


@pytest.fixture
def target() -> ModelTarget:
    return ModelTarget(build(SOFTMAX.core, {}, SHAPE, 3))


def test_accuracy_and_outcomes_agree_with_a_plain_pass(target: ModelTarget) -> None:
    data = samples(11)
    filled = fill(target, data, shift(unmoved), ("1",), metrics("accuracy"), 0, 4)
    logits = target.model(data.pixels)
    right = logits.argmax(1) == data.labels
    (record,) = filled.records
    assert record.value == pytest.approx(right.double().mean().item())
    assert (record.n, record.status) == (11, "ok")
    assert filled.outcomes is not None
    columns = filled.outcomes.to_pydict()
    assert columns["sample"] == list(data.ids)
    assert columns["prediction"] == logits.argmax(1).tolist()
    assert columns["correct"] == right.float().tolist()
    assert columns["first_broken"] == [-1 if r else 0 for r in right.tolist()]
    others = logits.scatter(1, data.labels[:, None], -torch.inf).amax(1)
    margins = logits.gather(1, data.labels[:, None])[:, 0] - others
    assert columns["margin"] == pytest.approx(margins.tolist(), abs=1e-5)


def test_collapse_is_measured_on_what_each_attention_reads(target: ModelTarget) -> None:
    data = samples(5)
    filled = fill(target, data, shift(unmoved), ("1",), metrics("token_cosine"), 0, 500)
    assert [(r.layer, r.point) for r in filled.records] == [(0, "read"), (1, "read"), (2, "read")]
    stream = target.model.tokens(data.pixels)
    read = nn.functional.layer_norm(stream, (12,)).double()
    unit = read / read.norm(dim=-1, keepdim=True)
    gram = unit @ unit.transpose(1, 2)
    n = gram.shape[1]
    expected = (gram.sum((1, 2)) - n) / (n * (n - 1))
    assert filled.records[0].value == pytest.approx(expected.mean().item(), abs=1e-6)
    assert filled.records[0].deviation == pytest.approx(expected.std().item(), abs=1e-6)
    assert filled.outcomes is not None
    assert filled.outcomes.column("token_cosine@read.0").to_pylist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 7, 32])
def test_nothing_depends_on_the_batch(target: ModelTarget, batch: int) -> None:
    data = samples(13)
    catalog = open_catalog()
    cases = {"pgd(steps=2)": ("0.05", "0.2"), "gaussian_noise(constants=digits_8)": ("3",), "patch_outlier": ("1/4",)}
    for name, severities in cases.items():
        names = ("accuracy", "token_cosine", "erank_unit")
        one, other = (
            fill(target, data, catalog.shift(name), severities, metrics(*names), 0, size) for size in (13, batch)
        )
        assert one.outcomes is not None
        assert one.outcomes.equals(other.outcomes), name
        assert one.records == other.records


def test_pixels_outside_the_box_make_the_cell_invalid(target: ModelTarget) -> None:
    def brighter(batch: Samples, severities: Sequence[str], draw: Draw, target: Any) -> tuple[Tensor, ...]:
        return (batch.pixels + 1,)

    filled = fill(target, samples(9), shift(brighter), ("1",), metrics("accuracy"), 0, 500)
    assert filled.records[0].status == "invalid"
    assert "leave the box" in filled.records[0].reason
    assert not filled.facts["severities"][0]["valid"]


def test_a_perturbation_outside_its_ball_makes_the_cell_invalid(target: ModelTarget) -> None:
    def further(batch: Samples, severities: Sequence[str], draw: Draw, target: Any) -> tuple[Tensor, ...]:
        return tuple((batch.pixels + 0.11).clamp(0, 1) for _ in severities)

    entry = shift(further, norm="linf", ladder=True)
    filled = fill(target, samples(9), entry, ("0.1", "0.2"), metrics("accuracy"), 0, 500)
    assert [fact["valid"] for fact in filled.facts["severities"]] == [False, True]
    assert [record.status for record in filled.records] == ["invalid", "ok"]


@pytest.mark.parametrize(
    ("norm", "moved", "budget", "bad"),
    [
        ("linf", 0.1, 0.1, False),
        ("linf", 0.1 + 2.0**-24, 0.1, False),
        ("linf", 0.1 + 2.0**-22, 0.1, True),
        ("l2", 0.5, 4.0, False),
        ("l2", 0.5 * (1 + 5e-7), 4.0, False),
        ("l2", 0.5 * (1 + 5e-6), 4.0, True),
        ("none", 0.9, None, False),
    ],
)
def test_the_ball_has_the_tolerance_of_the_law(norm: str, moved: float, budget: float | None, bad: bool) -> None:
    zero = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    assert bool(fault(perturbation(zero, zero + moved, norm), norm, budget)) is bad


def test_pixels_and_logits_that_are_no_numbers_fail_the_cell(target: ModelTarget) -> None:
    def broken(batch: Samples, severities: Sequence[str], draw: Draw, target: Any) -> tuple[Tensor, ...]:
        return (batch.pixels * torch.nan,)

    with pytest.raises(NotANumber, match="pixels that are no numbers"):
        fill(target, samples(9), shift(broken), ("1",), metrics("accuracy"), 0, 500)
    target.model.head.bias.data.fill_(torch.nan)
    with pytest.raises(NotANumber, match="logits are not finite"):
        fill(target, samples(9), shift(unmoved), ("1",), metrics("accuracy"), 0, 500)


class CoinCore(nn.Module):
    """Attention whose output is one declared random number."""

    noise = (Noise("coin", (1,), "uniform", "always"),)

    def __init__(self, site: Any) -> None:
        super().__init__()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Any) -> Tensor:
        return torch.zeros_like(v) + ctx.noise["coin"][:, :, None, None]


def test_a_stochastic_model_is_judged_on_fresh_passes() -> None:
    target = ModelTarget(build(CoinCore, {}, SHAPE._replace(depth=1), 1))
    assert not target.deterministic
    data = samples(9)
    filled = fill(target, data, shift(unmoved), ("1",), metrics("accuracy"), 0, 500)
    assert filled.facts["passes"] == JUDGE_PASSES == 50
    judge = Draw(0, "probe", "judge")
    passes = torch.stack([target(data.pixels, data.ids, judge.at(i)).argmax(1) == data.labels for i in range(50)])
    assert filled.outcomes is not None
    assert filled.outcomes.column("correct").to_pylist() == pytest.approx(passes.float().mean(0).tolist())
    first = filled.outcomes.column("correct_first").to_pylist()
    assert first == pytest.approx(passes[:25].float().mean(0).tolist())
    assert len({tuple(row) for row in passes.tolist()}) > 1, "the coin moved nothing, so the test shows nothing"


def test_hooks_are_off_while_an_attack_searches(target: ModelTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    taps: list[bool] = []
    model = target.model
    plain = model.forward

    def watched(pixels: Tensor, noise: Any = None, tap: Any = None) -> Tensor:
        taps.append(tap is not None)
        return plain(pixels, noise, tap)

    monkeypatch.setattr(model, "forward", watched)
    fill(target, samples(9), open_catalog().shift("pgd"), ("0.1",), metrics("token_cosine"), 0, 500)
    assert taps.count(True) == 1
    assert taps[-1]
    assert len(taps) > 4


def test_the_subsample_is_fixed_by_identity() -> None:
    ids = [f"s{i}" for i in range(50)]
    chosen = {name for name, taken in zip(ids, subsample(ids, 10).tolist(), strict=True) if taken}
    backwards = list(reversed(ids))
    again = {name for name, taken in zip(backwards, subsample(backwards, 10).tolist(), strict=True) if taken}
    assert chosen == again
    assert len(chosen) == 10
    assert subsample(ids, 0).all()
    assert subsample(ids, 60).all()


def test_an_undefined_value_is_null_with_a_reason(target: ModelTarget) -> None:
    from dataclasses import replace

    metric = replace(metrics("token_cosine")[0], measure=lambda tokens, mask: torch.full((len(tokens),), torch.nan))
    filled = fill(target, samples(9), shift(unmoved), ("1",), [metric], 0, 500)
    assert {(r.value, r.status, r.reason) for r in filled.records} == {(None, "null", "undefined on 9 of 9 inputs")}


def test_noise_changes_no_cost() -> None:
    catalog = open_catalog()
    counted = metrics("parameters", "flops", "activation_memory")
    values = []
    for name in ("random_metric", "random_metric(draw=resampled)"):
        entry = catalog.variant(name)
        for drop_path in (0.0, 0.2):
            model = build(entry.value.core, entry.settings, SHAPE._replace(drop_path=drop_path), 0)
            filled = fill_cost(ModelTarget(model), samples(9), counted)
            values.append({record.metric: record.value for record in filled.records})
    assert len({(v["parameters"], v["flops"]) for v in values}) == 1
    assert all(v["activation_memory"] > 1000 for v in values)


def test_two_variants_meet_the_same_attack_starts() -> None:
    data = samples(12)
    met: list[dict[str, Tensor]] = []
    for name in ("softmax", "quest"):
        entry = open_catalog().variant(name)
        target = ModelTarget(build(entry.value.core, entry.settings, SHAPE, 3))
        calls: list[dict[str, Tensor]] = []

        class Watched:
            deterministic = True

            def __call__(
                self, pixels: Tensor, ids: Sequence[str], draw: Draw, target: Any = target, calls: Any = calls
            ) -> Tensor:
                calls.append(dict(zip(ids, pixels.detach().clone(), strict=True)))
                return target(pixels, ids, draw)

        shift = open_catalog().shift("pgd(steps=1)")
        shift.value.apply(data, ("0.1",), Draw(0, "pgd", "shift"), Watched(), **shift.settings)
        assert all(torch.equal(calls[0][name], data.pixels[i]) for i, name in enumerate(data.ids))
        met.append(calls[1])
    both = met[0].keys() & met[1].keys()
    assert len(both) > 1
    assert all(torch.equal(met[0][name], met[1][name]) for name in both)
    assert any(not torch.equal(met[0][name], data.pixels[data.ids.index(name)]) for name in both)


class MixingCore(SoftmaxAttention):
    """Attention that takes the batch's mean away."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Any) -> Tensor:
        y = super().forward(q, k, v, ctx)
        return y - 0.9 * y.mean(0)


def test_a_model_that_mixes_samples_is_judged_one_at_a_time(target: ModelTarget) -> None:
    mixing = ModelTarget(build(MixingCore, {}, SHAPE, 3))
    data = samples(24)
    for victim, alone in ((target, False), (mixing, True)):
        filled = fill(victim, data, shift(unmoved), ("1",), metrics("accuracy", "token_cosine"), 0, 500)
        assert filled.facts["judged_alone"] is alone
        assert [record.status for record in filled.records] == ["ok"] * 4
    with torch.no_grad():
        each = torch.cat([mixing.model(data.pixels[i : i + 1]) for i in range(24)])
        together = mixing.model(data.pixels)
    assert filled.outcomes is not None
    assert filled.outcomes.column("prediction").to_pylist() == each.argmax(1).tolist()
    assert (each - together).abs().max() > 1e-2, "nothing was mixed, so the test shows nothing"


def test_a_mixing_model_is_attacked_one_sample_at_a_time() -> None:
    """So its outcomes depend on no batch, which they would if companions moved its gradients."""
    mixing = ModelTarget(build(MixingCore, {}, SHAPE._replace(dim=16), 3))
    data = samples(24)
    pgd = open_catalog().shift("pgd(steps=2)")
    whole, pieces = (fill(mixing, data, pgd, ("0.1",), metrics("accuracy"), 0, size) for size in (24, 5))
    assert whole.outcomes is not None
    assert whole.outcomes.equals(pieces.outcomes)
