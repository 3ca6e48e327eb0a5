"""What a run measures, row by row: which numbers are shown, which one sorts, and what they are compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from . import frame
from .difference import Difference, difference
from .estimate import Estimate, estimate
from .measure import Evidence, Measure, Part, Reading
from .run import Document, Run

ACCURACY = "accuracy"
"""Metric of a correct answer."""
HEADLINE = "token_cosine"
"""Metric of collapse that the board shows where a run holds it."""
COSTS = "cost"
"""Shift under which costs are recorded."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One shift with all its planned severities."""

    shift: str
    """Its label."""
    family: str
    """Its family."""
    severities: tuple[str, ...]
    """In the plan's order."""
    unit: str
    """Unit of the severity."""


def severity_number(text: str) -> float | None:
    """Read a severity as a number; None where it is a word.

    >>> severity_number("8/255") == 8 / 255, severity_number("hard")
    (True, None)
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return None


def trapezoid(points: Mapping[Part, float]) -> dict[Part, float]:
    """Return the weights with which values at rising places average to the area under their curve over its width.

    >>> list(trapezoid({("clean", "0"): 0.0, ("pgd", "1"): 1.0, ("pgd", "3"): 3.0}).values())
    [0.16666666666666666, 0.5, 0.3333333333333333]
    """
    ordered = sorted(points.items(), key=lambda item: item[1])
    width = ordered[-1][1] - ordered[0][1]
    places = [ordered[0][1], *(place for _, place in ordered), ordered[-1][1]]
    return {part: (places[i + 2] - places[i]) / 2 / width for i, (part, _) in enumerate(ordered)}


@dataclass(slots=True)
class Board:
    """The rows and numbers of one run; estimates are made once."""

    run: Run
    """What was planned and done."""
    evidence: Evidence
    """Its records and outcomes."""
    sweeps: tuple[Sweep, ...] = ()
    """Shifts in the plan's order, without costs."""
    _readings: dict[tuple[str, str], list[Reading]] = field(default_factory=dict)
    _estimates: dict[tuple[str, str], Estimate] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Rows in the plan's order."""
        return [row["label"] for row in self.run.rows]

    @property
    def baseline(self) -> str | None:
        """Row that the others are compared with; None where the plan names none that exists."""
        name = (self.run.protocol.get("statistics") or {}).get("baseline")
        rows = [row for row in self.run.rows if row.get("role") != "a/a"]
        named = [row["label"] for row in rows if row["label"] == name] or [
            row["label"] for row in rows if row.get("variant") == name
        ]
        return named[0] if named else None

    @property
    def twins(self) -> list[str]:
        """Rows that train the baseline again and show the noise floor."""
        variants = [row.get("variant") for row in self.run.rows if row["label"] == self.baseline]
        return [r["label"] for r in self.run.rows if r.get("role") == "a/a" and r.get("variant") in variants]

    def row(self, label: str) -> Document:
        """Return what the plan says of a row."""
        return next(row for row in self.run.rows if row["label"] == label)

    def family(self, *families: str) -> list[Sweep]:
        """Return the shifts of some families."""
        return [sweep for sweep in self.sweeps if sweep.family in families]

    def measure(self, name: str, heading: str, metric: str, weights: Mapping[Part, float], layer: int = -1) -> Measure:
        """Return a measure with what the metric's declaration and records say of it."""
        declared = self.run.declared("metrics", metric)
        first = self.evidence.metrics.get(metric, {})
        share = metric == ACCURACY
        if declared.get("needs"):
            share = declared["needs"] == "outputs" and (declared.get("lowest"), declared.get("highest")) == (0, 1)
        return Measure(
            name=name,
            heading=heading,
            metric=metric,
            weights=weights,
            unit=str(first.get("unit") or declared.get("unit") or "1"),
            better=str(first.get("better") or declared.get("better") or ("higher" if share else "neither")),
            share=share,
            point=str(first.get("point", "")) if layer >= 0 else "",
            layer=layer,
        )

    def accuracy(self, name: str, heading: str, weights: Mapping[Part, float]) -> Measure:
        """Return a measure of correct answers."""
        return self.measure(name, heading, ACCURACY, weights)

    def at(self, sweep: Sweep, severity: str) -> Measure:
        """Return accuracy under one shift at one severity."""
        heading = sweep.shift if sweep.family == "clean" else f"{sweep.shift} at {severity}"
        return self.accuracy(f"accuracy:{sweep.shift}:{severity}", heading, {(sweep.shift, severity): 1.0})

    def mean(self, name: str, heading: str, sweeps: Iterable[Sweep]) -> Measure:
        """Return mean accuracy: over the severities of a shift, then over shifts."""
        return self.accuracy(name, heading, mean_weights(sweeps))

    def curve(self, sweep: Sweep) -> Measure:
        """Return accuracy averaged over a security curve from no change to its last severity (trapezoid rule)."""
        if len(sweep.severities) == 1:
            return self.at(sweep, sweep.severities[0])
        places = {(sweep.shift, s): severity_number(s) for s in sweep.severities}
        numbers = {part: place for part, place in places.items() if place is not None}
        name, heading = f"area:{sweep.shift}", f"{sweep.shift}, area to {sweep.severities[-1]}"
        if len(numbers) < len(places) or len(set(numbers.values())) < len(numbers):
            return self.mean(name, heading, [sweep])
        clean = self.family("clean")
        if clean and min(numbers.values()) > 0:
            numbers[clean[0].shift, clean[0].severities[0]] = 0.0
        return self.accuracy(name, heading, trapezoid(numbers))

    @property
    def candidates(self) -> list[Measure]:
        """Measures that may sort the board: the first PGD curve, the first adversarial one, clean accuracy."""
        attacks = self.family("adversarial")
        ladders = [s for s in attacks if len(s.severities) > 1 and s.shift.startswith("pgd")]
        chosen = [*ladders, *(s for s in attacks if s.shift.startswith("pgd")), *attacks][:1]
        return [*map(self.curve, chosen), *(self.at(s, s.severities[0]) for s in self.family("clean")[:1])]

    @property
    def criterion(self) -> Measure | None:
        """Measure that sorts the board: the first candidate that any row has; None without any."""
        found = self.candidates
        return next((m for m in found if any(self.estimate(x, m).value is not None for x in self.labels)), None)

    @property
    def order(self) -> list[str]:
        """Rows as the criterion sorts them; rows without a valid number last."""
        criterion = self.criterion
        if criterion is None:
            return self.labels
        found = {label: self.estimate(label, criterion) for label in self.labels}
        good = [label for label in self.labels if found[label].status == "ok"]
        return sorted(good, key=lambda x: -(found[x].value or 0.0)) + [x for x in self.labels if x not in good]

    def layers(self, metric: str) -> list[int]:
        """Return the layers at which a metric was read."""
        return self.evidence.layers.get(metric, [])

    @property
    def layer_metrics(self) -> list[str]:
        """Metrics of hidden states, in the order of their records."""
        return list(self.evidence.layers)

    def parts(self, metric: str, sweeps: Iterable[Sweep], last: bool = False) -> dict[Part, float]:
        """Return equal weights of the shifts and severities at which any row has a metric; `last`: the hardest only."""
        known = self.evidence.parts.get(metric, set())
        kept = [
            Sweep(s.shift, s.family, tuple(v for v in s.severities if (s.shift, v) in known), s.unit) for s in sweeps
        ]
        kept = [Sweep(s.shift, s.family, s.severities[-1:], s.unit) if last else s for s in kept if s.severities]
        return mean_weights(kept)

    @property
    def collapse(self) -> Measure | None:
        """The headline of collapse: clean, at the last layer that is read; None where no hidden state was measured."""
        metrics = self.layer_metrics
        if not metrics:
            return None
        metric = HEADLINE if HEADLINE in metrics else metrics[0]
        layer = self.layers(metric)[-1]
        weights = self.parts(metric, self.family("clean")[:1])
        return self.measure(f"{metric}:clean:{layer}", f"{metric}, layer {layer}, clean", metric, weights, layer)

    @property
    def costs(self) -> list[Measure]:
        """Costs, in the order of their records."""
        found = self.evidence.records
        found = found[found["shift"] == COSTS]
        places = found[["metric", "severity"]].drop_duplicates("metric").itertuples(index=False, name=None)
        return [self.measure(f"cost:{m}", str(m).replace("_", " "), str(m), {(COSTS, str(s)): 1.0}) for m, s in places]

    def readings(self, label: str, measure: Measure) -> list[Reading]:
        """Return what every planned network of a row reads."""
        key = label, measure.name
        if key not in self._readings:
            self._readings[key] = [self.evidence.reading(model, measure) for model in self.run.models(label)]
        return self._readings[key]

    def estimate(self, label: str, measure: Measure) -> Estimate:
        """Return a row's number and its interval."""
        key = label, measure.name
        if key not in self._estimates:
            self._estimates[key] = estimate(self.readings(label, measure), measure, self.run.confidence)
        return self._estimates[key]

    def difference(self, label: str, other: str, measure: Measure) -> Difference:
        """Return one row minus another."""
        return difference(self.readings(label, measure), self.readings(other, measure), measure, self.run.confidence)

    @property
    def networks(self) -> int:
        """Most networks that any row has a number of, on the criterion."""
        criterion = self.criterion
        return max((self.estimate(x, criterion).n_seeds for x in self.labels), default=0) if criterion else 0

    @property
    def chance(self) -> float | None:
        """Accuracy of a constant guess, from 0 to 1."""
        chance = self.run.declarations("task").get("chance")
        return float(chance) if isinstance(chance, int | float) else None


def mean_weights(sweeps: Iterable[Sweep]) -> dict[Part, float]:
    """Return weights of a mean over the severities of a shift, then over shifts."""
    found = list(sweeps)
    return {(s.shift, v): 1 / len(s.severities) / len(found) for s in found for v in s.severities}


def board(run: Run) -> Board:
    """Read a run's records and outcomes and find its shifts."""
    sweeps: dict[str, Sweep] = {}
    for cell in run.planned:
        if cell["shift"] != COSTS:
            known = sweeps.get(cell["shift"])
            severities = [*(known.severities if known else ()), *(cell.get("severities") or [""])]
            unit = cell.get("unit") or ""
            sweeps[cell["shift"]] = Sweep(cell["shift"], cell["family"], tuple(dict.fromkeys(severities)), unit)
    return Board(run, Evidence(run, frame.records(run), frame.outcomes(run)), tuple(sweeps.values()))
