"""Fills one cell: shifts the test samples, judges the model on them, measures, and says what can be believed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..attacks.shift import Shift, severity_value
from ..metrics.metric import Metric
from ..metrics.observation import Observation
from ..models.network import Network
from ..results.record import Record
from .ball import Perturbation, fault, merged, perturbation
from .catalog import Entry
from .noise import drawn
from .target import COUPLING_TOLERANCE, JUDGE_PASSES, SMALLEST_BATCH, ModelTarget

VALUE = tuple[str, int | None]
"""A metric's name and the layer, None for metrics of outputs."""


class NotANumber(ArithmeticError):
    """The model answered with something that is no number."""


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


class _Rung:
    """What has been gathered at one severity."""

    def __init__(self) -> None:
        self.perturbations: list[Perturbation] = []
        self.pixels = hashlib.sha256()
        self.predictions: list[Tensor] = []
        self.margins: list[Tensor] = []
        self.correct: list[Tensor] = []
        self.values: dict[VALUE, list[Tensor]] = {}


def _judged(target: ModelTarget, samples: Samples, pixels: Tensor, draw: Draw, points: set[str]) -> Observation:
    """Pass some inputs through the model, hooks on in the first pass only."""
    hidden: dict[tuple[str, int], Tensor] = {}

    def tap(point: str, layer: int, tokens: Tensor) -> None:
        if point in points:
            hidden[point, layer] = tokens

    passes = 1 if target.deterministic else JUDGE_PASSES
    with torch.no_grad():
        logits = [target(pixels, samples.ids, draw.at(i), tap if points and i == 0 else None) for i in range(passes)]
    observation = Observation(torch.stack(logits), samples.labels, hidden)
    if not torch.isfinite(observation.logits).all():
        raise NotANumber("the model's logits are not finite")
    return observation


def _gather(rung: _Rung, observation: Observation, metrics: Sequence[Metric], chosen: Mapping[str, Tensor]) -> None:
    logits = observation.logits.double()
    target = observation.targets
    rung.predictions.append(logits.mean(0).argmax(1))
    others = logits.scatter(2, target.expand(len(logits), -1)[..., None], -torch.inf).amax(2)
    own = logits.gather(2, target.expand(len(logits), -1)[..., None])[..., 0]
    rung.margins.append((own - others).mean(0))
    rung.correct.append((logits.argmax(2) == target).double().mean(0))
    for metric in metrics:
        if metric.needs == "outputs":
            rung.values.setdefault((metric.name, None), []).append(metric.measure(observation).double().cpu())
        elif metric.needs == "tokens":
            rows = chosen[metric.name]
            for (point, layer), tokens in observation.hidden.items():
                if point == metric.hook_point:
                    values = torch.full((len(tokens),), torch.nan, dtype=torch.float64)
                    if rows.any():
                        values[rows] = metric.measure(tokens[rows], None).double().cpu()
                    rung.values.setdefault((metric.name, layer), []).append(values)


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
) -> Filled:
    """Measure one cell.

    Raises whatever the shift or the model raises, and NotANumber for logits that are no numbers.
    """
    declared = shift.value
    draw = Draw(noise_seed, declared.name, "shift")
    judge = Draw(noise_seed, declared.name, "judge")
    norm = str(shift.settings.get("norm", declared.norm))
    points = {metric.hook_point for metric in metrics if metric.needs == "tokens"}
    chosen = {metric.name: subsample(samples.ids, metric.subsample) for metric in metrics}
    rungs = [_Rung() for _ in severities]
    coupling = target.coupling(samples.rows(range(min(len(samples.ids), 3 * SMALLEST_BATCH))))
    done = 0
    for part in _chunks(samples, declared, batch):
        rows = {name: mask[done : done + len(part.ids)] for name, mask in chosen.items()}
        done += len(part.ids)
        changed = declared.apply(part, tuple(severities), draw, target, **shift.settings)
        for rung, pixels in zip(rungs, changed, strict=True):
            rung.perturbations.append(perturbation(part.pixels, pixels, norm))
            rung.pixels.update(pixels.detach().contiguous().cpu().numpy().tobytes())
            if rung.perturbations[-1].finite:
                _gather(rung, _judged(target, part, pixels, judge, points), metrics, rows)
    return _summary(rungs, samples, severities, metrics, chosen, norm, target, coupling)


def _budget(severity: str, norm: str) -> float | None:
    return None if norm == "none" or severity == "unbounded" else severity_value(severity)


def _summary(
    rungs: Sequence[_Rung],
    samples: Samples,
    severities: Sequence[str],
    metrics: Sequence[Metric],
    chosen: Mapping[str, Tensor],
    norm: str,
    target: ModelTarget,
    coupling: float,
) -> Filled:
    by_name = {metric.name: metric for metric in metrics}
    records, facts, tables = [], [], []
    for index, (rung, severity) in enumerate(zip(rungs, severities, strict=True)):
        found = merged(rung.perturbations)
        if not found.finite:
            raise NotANumber(f"the shift returned pixels that are no numbers at severity {severity}")
        budget = _budget(severity, norm)
        invalid = fault(found, norm, budget) or mixing(coupling)
        facts.append(
            {
                "severity": severity,
                "ball": norm,
                "budget": budget,
                "largest_perturbation": found.largest,
                "lowest_pixel": found.lowest,
                "highest_pixel": found.highest,
                "valid": not invalid,
                "reason": invalid,
                "pixels_sha256": rung.pixels.hexdigest(),
            }
        )
        columns: dict[str, Any] = {
            "sample": list(samples.ids),
            "rung": pa.array([index] * len(samples.ids), pa.int32()),
            "severity": [severity] * len(samples.ids),
            "target": pa.array(samples.labels.tolist(), pa.int32()),
            "prediction": pa.array(torch.cat(rung.predictions).tolist(), pa.int32()),
            "margin": pa.array(torch.cat(rung.margins).tolist(), pa.float32()),
            "correct": pa.array(torch.cat(rung.correct).tolist(), pa.float32()),
        }
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
    passes = 1 if target.deterministic else JUDGE_PASSES
    common = {"deterministic": target.deterministic, "passes": passes, "coupling": coupling}
    return Filled(records, {**common, "severities": facts}, outcomes)


def _unseen(metrics: Sequence[Metric], rung: _Rung, severity: str) -> Iterator[Record]:
    """Yield an empty record for each metric of tokens where the network showed none."""
    shown = {name for name, _ in rung.values}
    for metric in metrics:
        if metric.needs == "tokens" and metric.name not in shown:
            reason = f"the network shows no tokens at '{metric.hook_point}'"
            record = Record(metric.name, None, metric.unit, metric.better, 0, severity, metric.hook_point)
            yield replace(record, status="null", reason=reason)


def mixing(coupling: float) -> str:
    """Return why a sample's outcome is not its own, or an empty string."""
    if coupling <= COUPLING_TOLERANCE:
        return ""
    return f"the model mixes the samples of a batch: others move a sample's logits by {100 * coupling:.2g} %"


def _first_broken(broken: Sequence[Any]) -> list[int]:
    """Return for each sample the index of the first severity at which it was not correct, -1 if there is none."""
    return [next((i for i, rung in enumerate(broken) if rung[sample]), -1) for sample in range(len(broken[0]))]


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
