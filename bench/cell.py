"""Fills one cell: shifts the test samples, judges the model on them, measures, and says what can be believed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ..attacks.adversarial.look import SMALLEST_BATCH
from ..attacks.draw import Draw
from ..attacks.samples import JUDGE_PASSES, Samples, Target
from ..attacks.shift import Shift, severity_value
from ..attacks.trust.evidence import evidence
from ..metrics.metric import Metric
from ..models.network import Network
from ..results.record import Record
from .ball import fault
from .catalog import Entry
from .noise import drawn
from .rung import NotANumber, Rung, judged
from .shifting import shifted
from .target import COUPLING_TOLERANCE, ModelTarget


class Filled(NamedTuple):
    """One cell's content, before it is stored."""

    records: list[Record]
    """The numbers."""
    facts: dict[str, Any]
    """What verdicts are derived from."""
    outcomes: pa.Table | None
    """Outcomes by sample and severity."""


def subsample(ids: Sequence[str], size: int) -> Tensor:
    """Return which samples belong to the fixed subsample of a size: those with the smallest hash of their id."""
    if size == 0 or size >= len(ids):
        return torch.ones(len(ids), dtype=torch.bool)
    ranked = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    chosen = torch.zeros(len(ids), dtype=torch.bool)
    chosen[ranked[:size]] = True
    return chosen


def _chunks(samples: Samples, shift: Shift, batch: int) -> Iterator[Samples]:
    size = len(samples.ids) if shift.chunk_coupled else batch
    for start in range(0, len(samples.ids), size):
        stop = start + size
        yield Samples(samples.pixels[start:stop], samples.labels[start:stop], samples.ids[start:stop])


def _record(metric: Metric, severity: str, layer: int | None, values: Tensor, invalid: str) -> Record:
    n = len(values)
    undefined = int((~torch.isfinite(values)).sum())
    record = Record(metric.name, None, metric.unit, metric.better, n, severity, metric.hook_point, layer)
    if n == 0 or undefined:
        reason = "no input" if n == 0 else f"undefined on {undefined} of {n} inputs"
        return replace(record, status="null", reason=reason)
    return replace(
        record,
        value=float(values.mean()),
        deviation=float(values.std()) if n > 1 else None,
        status="invalid" if invalid else "ok",
        reason=invalid,
    )


def fill(
    target: ModelTarget,
    samples: Samples,
    shift: Entry[Shift],
    severities: Sequence[str],
    metrics: Sequence[Metric],
    noise_seed: int,
    batch: int,
    surrogate: Target | None = None,
) -> Filled:
    """Measure one cell; `surrogate` is what a transfer attack looks at.

    A model that mixes the samples of a batch is attacked and judged one sample at a time. Raises whatever the shift or
    the model raises, and NotANumber for logits that are no numbers.
    """
    declared = shift.value
    draw = Draw(noise_seed, declared.name, "shift")
    judge = Draw(noise_seed, declared.name, "judge")
    points = {metric.hook_point for metric in metrics if metric.needs == "tokens"}
    chosen = {metric.name: subsample(samples.ids, metric.subsample) for metric in metrics}
    norm, patch = str(shift.settings.get("norm", declared.norm)), int(shift.settings.get("patch", 1))
    rungs = [Rung(norm, patch) for _ in severities]
    coupling = apart(target, samples)
    done = 0
    for part in _chunks(samples, declared, batch):
        rows = {name: mask[done : done + len(part.ids)] for name, mask in chosen.items()}
        done += len(part.ids)
        changed = shifted(shift, part, severities, draw, target, surrogate)
        for rung, point, from_open in zip(rungs, *changed, strict=True):
            rung.from_open += from_open
            if rung.measure(part, point, target, draw):
                rung.gather(judged(target, part, point, judge, points), metrics, rows)
    filled = _summary(rungs, samples, severities, metrics, chosen, shift, target)
    return filled._replace(facts={**filled.facts, "coupling": coupling})


def apart(target: ModelTarget, samples: Samples) -> float:
    """Measure how far the samples of a batch mix, and let them pass one by one where they do."""
    target.separate(coupled=False)
    coupling = target.coupling(samples.rows(range(min(len(samples.ids), 3 * SMALLEST_BATCH))))
    target.separate(coupled=coupling > COUPLING_TOLERANCE)
    return coupling


def _budget(severity: str, norm: str) -> float | None:
    return None if norm == "none" or severity == "unbounded" else severity_value(severity)


def _terms(rung: Rung, severity: str, shift: Entry[Shift], target: ModelTarget) -> dict[str, Any]:
    """Return what was allowed at a severity, what came of it and whether that is lawful.

    A convention has laws of its own: what its eps is in pixels is stated, and nothing is held against it.
    """
    budget = _budget(severity, rung.norm)
    found = {"severity": severity, "ball": rung.norm, "budget": budget, **rung.facts()}
    if shift.value.convention:
        assert budget is not None
        return {**found, "valid": True, "reason": "", "pixel_eps": budget * max(target.std)}
    reason = fault(rung.perturbation, rung.norm, budget)
    return {**found, "valid": not reason, "reason": reason}


def _summary(
    rungs: Sequence[Rung],
    samples: Samples,
    severities: Sequence[str],
    metrics: Sequence[Metric],
    chosen: Mapping[str, Tensor],
    shift: Entry[Shift],
    target: ModelTarget,
) -> Filled:
    by_name = {metric.name: metric for metric in metrics}
    records, facts, tables = [], [], []
    for index, (rung, severity) in enumerate(zip(rungs, severities, strict=True)):
        if not rung.perturbation.finite:
            raise NotANumber(f"the shift returned pixels that are no numbers at severity {severity}")
        facts.append(_terms(rung, severity, shift, target))
        invalid = facts[-1]["reason"]
        columns: dict[str, Any] = {
            "sample": list(samples.ids),
            "rung": pa.array([index] * len(samples.ids), pa.int32()),
            "severity": [severity] * len(samples.ids),
            "target": pa.array(samples.labels.tolist(), pa.int32()),
            "prediction": pa.array(torch.cat(rung.predictions).tolist(), pa.int32()),
            "margin": pa.array(torch.cat(rung.margins).tolist(), pa.float32()),
            "correct": pa.array(torch.cat(rung.correct).tolist(), pa.float32()),
            "norm": pa.array(torch.cat(rung.sizes).tolist(), pa.float32()),
        }
        if not target.deterministic:
            columns["correct_first"] = pa.array(torch.cat(rung.correct_first).tolist(), pa.float32())
        for (name, layer), parts in sorted(rung.values.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
            metric, values = by_name[name], torch.cat(parts)
            records.append(_record(metric, severity, layer, values[chosen[name]], invalid))
            if layer is not None and metric.kept_by_sample:
                kept = [v if v == v else None for v in values.tolist()]
                columns[f"{name}@{metric.hook_point}.{layer}"] = pa.array(kept, pa.float32())
        records.extend(_unseen(metrics, rung, severity))
        tables.append(columns)
    broken = _first_broken([columns["correct"].to_numpy() < 0.5 for columns in tables])
    for columns in tables:
        columns["first_broken"] = pa.array(broken, pa.int32())
    outcomes = pa.concat_tables([pa.table(columns) for columns in tables])
    common = {
        "deterministic": target.deterministic,
        "passes": 1 if target.deterministic else JUDGE_PASSES,
        "judged_alone": target.alone,
        "opened": target.opened is not None,
        "taken_from_open": sum(rung.from_open for rung in rungs),
    }
    return Filled(records, {**common, "severities": facts}, outcomes)


def _unseen(metrics: Sequence[Metric], rung: Rung, severity: str) -> Iterator[Record]:
    """Yield an empty record for each metric of tokens where the network showed none."""
    shown = {name for name, _ in rung.values}
    for metric in metrics:
        if metric.needs == "tokens" and metric.name not in shown:
            reason = f"the network shows no tokens at '{metric.hook_point}'"
            record = Record(metric.name, None, metric.unit, metric.better, 0, severity, metric.hook_point)
            yield replace(record, status="null", reason=reason)


def _first_broken(broken: Sequence[Any]) -> list[int]:
    """Return for each sample the index of the first severity at which it was not correct, -1 if there is none."""
    return [next((i for i, rung in enumerate(broken) if rung[sample]), -1) for sample in range(len(broken[0]))]


def fill_trust(
    target: ModelTarget,
    samples: Samples,
    norm: str,
    ladder: Sequence[str],
    size: int,
    noise_seed: int,
    surrogate: Target | None,
) -> Filled:
    """Gather what says whether the adversarial numbers of a model can be believed, on a fixed subsample.

    Raises what `evidence` raises.
    """
    coupling = apart(target, samples)
    chosen = samples.rows(subsample(samples.ids, size).nonzero()[:, 0])
    draw = Draw(noise_seed, "trust", "shift")
    found = evidence(target, chosen, norm=norm, ladder=ladder, draw=draw, opened=target.opened, surrogate=surrogate)
    facts = {"deterministic": target.deterministic, "judged_alone": target.alone, "coupling": coupling, "trust": found}
    return Filled([], facts, None)


def fill_cost(target: ModelTarget, samples: Samples, metrics: Sequence[Metric]) -> Filled:
    """Measure what the model itself costs."""
    model = Bound(target.model, samples.ids).eval()
    records = []
    for metric in metrics:
        value = float(metric.measure(model, samples.pixels))
        records.append(Record(metric=metric.name, value=value, unit=metric.unit, better=metric.better, n=1))
    return Filled(records, {"deterministic": target.deterministic}, None)


class Bound(torch.nn.Module):
    """A model that takes pixels alone: the noise that it wants is drawn once and repeated."""

    def __init__(self, model: Network, ids: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.ids = ids

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of any number of rows, in training mode too."""
        ids = [self.ids[i % len(self.ids)] for i in range(len(pixels))]
        draw = Draw(0, "cost", "judge")
        logits: Tensor = self.model(pixels, drawn(self.model.noise(), ids, draw, pixels.device, training=self.training))
        return logits


def as_documents(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return records ready for JSON."""
    return [asdict(record) for record in records]
