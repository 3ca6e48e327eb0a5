"""One number of the board as a weighted mean over shifts and severities, read for one network."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from . import frame
from .run import Document, Model, Run
from .sweep import Part

Status = Literal["ok", "null", "invalid", "broken"]
"""`null` where there is no number, `invalid` where a law was broken, `broken` where a gate says it means nothing."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of the board."""

    name: str
    """Unique, and the name of its column in files."""
    heading: str
    """What readers see."""
    metric: str
    """The metric behind it."""
    weights: Mapping[Part, float]
    """Weight of each shift and severity; the weights sum to one."""
    unit: str = "1"
    """Its unit."""
    better: str = "neither"
    """Which direction is wished for."""
    share: bool = False
    """Whether it is a mean of values from 0 to 1, one a sample, and is shown in percent."""
    point: str = ""
    """Hook point, for metrics of hidden states."""
    layer: int = -1
    """Layer, for metrics of hidden states; -1 for the others."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one network reads on one measure."""

    model: Model
    """The network."""
    value: float | None
    """The number."""
    n: int = 0
    """Inputs behind it."""
    deviation: float | None = None
    """Standard deviation over inputs."""
    scores: pd.Series | None = None
    """One value a sample, by sample."""
    status: Status = "ok"
    """Whether it can be compared."""
    reason: str = ""
    """Why it is not `ok`, or what the reader must know."""


class Evidence:
    """The records and outcomes of a run, found by network, shift, severity and metric."""

    def __init__(self, run: Run, records: pd.DataFrame, outcomes: pd.DataFrame) -> None:
        self.run = run
        self.records = records.iloc[:0]
        self._record: dict[tuple[Any, ...], Mapping[Hashable, Any]] = {}
        self.metrics: dict[str, Mapping[Hashable, Any]] = {}
        """The first record of each metric."""
        self.layers: dict[str, list[int]] = {}
        """The layers at which each metric of hidden states was read."""
        self.parts: dict[str, set[Part]] = {}
        """The shifts and severities under which each metric was recorded."""
        place = ["label", "fold", "training_seed", "shift", "severity"]
        self._group: dict[tuple[Any, ...], pd.DataFrame] = {
            tuple(key): part.set_index("sample").sort_index()
            for key, part in outcomes.groupby(place, sort=False, observed=True)
        }
        self._planned = {
            (c["label"], int(c["fold"]), int(c["training_seed"]), c["shift"], severity): c
            for c in run.planned
            for severity in c.get("severities") or [""]
        }
        self._accuracies: dict[tuple[Model, Part], Reading] = {}
        self.add(records, {})

    def accuracy(self, model: Model, part: Part) -> Reading:
        """Return a network's accuracy under one shift at one severity, read once."""
        if (model, part) not in self._accuracies:
            measure = Measure("", "", "accuracy", {part: 1.0}, share=True)
            self._accuracies[model, part] = self.reading(model, measure)
        return self._accuracies[model, part]

    def add(self, records: pd.DataFrame, groups: Mapping[tuple[Model, Part], pd.DataFrame]) -> None:
        """Take in records, and outcomes of a network under a shift and severity, by sample."""
        self.records = pd.concat([self.records, records], ignore_index=True) if len(self.records) else records
        rows = zip(records[frame.WHERE].itertuples(index=False, name=None), records.to_dict("records"), strict=True)
        for where, record in rows:
            self._record[where] = record
            self.metrics.setdefault(record["metric"], record)
            self.parts.setdefault(record["metric"], set()).add((record["shift"], record["severity"]))
            if record["layer"] >= 0:
                known = self.layers.get(record["metric"], [])
                self.layers[record["metric"]] = sorted({*known, record["layer"]})
        self._group.update({(*model, *part): group for (model, part), group in groups.items()})

    def group(self, model: Model, part: Part) -> pd.DataFrame | None:
        """Return what a network's outcomes say, by sample in rising order; None where there are none."""
        return self._group.get((*model, *part))

    def cell(self, model: Model, part: Part) -> Document | None:
        """Return the planned cell of a network under a shift and severity; None where none was planned."""
        return self._planned.get((*model, *part))

    def _scores(self, model: Model, measure: Measure) -> pd.Series | None:
        """Return the weighted mean of every sample; None unless all parts know the same samples."""
        column = "correct" if measure.layer < 0 else f"{measure.metric}@{measure.point}.{measure.layer}"
        total: pd.Series | None = None
        for part, weight in measure.weights.items():
            group = self.group(model, part)
            if group is None or column not in group:
                return None
            values = group[column]
            values = (values.dropna() if values.hasnans else values) * weight
            if total is not None and not values.index.equals(total.index):
                if len(values) != len(total) or not values.index.isin(total.index).all():
                    return None
                values = values.reindex(total.index)
            total = values if total is None else total + values
        return None if total is None or total.empty or not total.index.is_unique else total

    def _why(self, model: Model, part: Part, metric: str) -> str:
        cell = self.cell(model, part)
        if cell is None:
            return self.run.why_unplanned(model.label, part[0])
        if cell["key"] not in self.run.cells:
            return self.run.why_missing(cell)
        return f"{metric} was not measured there"

    def reading(self, model: Model, measure: Measure) -> Reading:
        """Return what a network reads; null with the first reason where a part is missing."""
        value, n, parts, status, reasons = 0.0, 0, len(measure.weights), "ok", []
        record: Mapping[Hashable, Any] = {}
        missing: list[str] = []
        for part, weight in measure.weights.items():
            record = self._record.get((*model, *part, measure.metric, measure.point, measure.layer), {})
            number = record.get("value")
            if record.get("status") == "null" or not isinstance(number, float) or number != number:
                missing.append(str(record.get("reason") or self._why(model, part, measure.metric)))
                continue
            if record["status"] == "invalid":
                status = "invalid"
            said = record.get("reason")
            if record["status"] == "invalid" or (isinstance(said, str) and said):
                reasons.append(str(said or "a law was broken"))
            value += weight * number
            n = int(record["n"]) if n == 0 else min(n, int(record["n"]))
        if not measure.weights:
            return Reading(model, None, status="null", reason="not part of the plan")
        if missing:
            count = f" ({len(missing)} of {parts} parts)" if parts > 1 else ""
            return Reading(model, None, status="null", reason=f"{missing[0]}{count}")
        deviation = record.get("deviation")
        single = parts == 1 and isinstance(deviation, float) and deviation == deviation
        counted = measure.share or measure.layer >= 0
        return Reading(
            model,
            value,
            n,
            deviation if single else None,
            self._scores(model, measure) if counted else None,
            "invalid" if status == "invalid" else "ok",
            "; ".join(dict.fromkeys(reasons)),
        )
