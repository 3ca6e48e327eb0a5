"""What a run measures, row by row: which numbers are shown, which one sorts, and what they are compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from . import frame
from .credence import Credence, Doubt, credences
from .difference import Difference, difference
from .estimate import Estimate, estimate
from .measure import Evidence, Measure, Reading
from .run import Document, Run, track
from .sweep import COSTS, Part, Sweep, mean_weights, planned_sweeps, trapezoid
from .worst import add_worst_cases, worst_sweeps

ACCURACY = "accuracy"
"""Metric of a correct answer."""
HEADLINE = "token_cosine"
"""Metric of collapse that the board shows where a run holds it."""


@dataclass(slots=True)
class Board:
    """The rows of one track and their numbers; estimates are made once."""

    run: Run
    """What was planned and done."""
    evidence: Evidence
    """Its records and outcomes, of all tracks."""
    sweeps: tuple[Sweep, ...] = ()
    """Shifts in the plan's order, without costs; a worst case stands before the attacks."""
    track: str = ""
    """Recipe that the rows were trained with."""
    credences: Mapping[tuple[str, str], Credence] = field(default_factory=dict)
    """How far the adversarial numbers of a row can be believed, by row and norm."""
    _readings: dict[tuple[str, str], list[Reading]] = field(default_factory=dict)
    _estimates: dict[tuple[str, str], Estimate] = field(default_factory=dict)

    @property
    def rows(self) -> list[Document]:
        """What the plan says of the rows of this track."""
        return [row for row in self.run.rows if track(row) == self.track]

    @property
    def labels(self) -> list[str]:
        """Rows in the plan's order."""
        return [row["label"] for row in self.rows]

    @property
    def others(self) -> list["Board"]:
        """The boards of the tracks after the first, with the same numbers."""
        return [replace(self, track=name) for name in self.run.tracks[1:]]

    def short(self, label: str) -> str:
        """Return a row's name without the track that all rows around it share."""
        return label.removesuffix(f" [{self.track}]") if self.track != self.run.tracks[0] else label

    def counterpart(self, row: Document) -> str | None:
        """Return the row of this track with the same attention in the same role; None without one."""
        same = ("variant", "settings", "role")
        return next((r["label"] for r in self.rows if all(r.get(k) == row.get(k) for k in same)), None)

    @property
    def baseline(self) -> str | None:
        """Row that the others are compared with; None where the plan names none that exists."""
        name = (self.run.protocol.get("statistics") or {}).get("baseline")
        first = [r for r in self.run.rows if r.get("role") != "a/a" and track(r) == self.run.tracks[0]]
        named = [r for r in first if r["label"] == name] or [r for r in first if r.get("variant") == name]
        if not named or self.track == self.run.tracks[0]:
            return named[0]["label"] if named else None
        return self.counterpart(named[0])

    @property
    def twins(self) -> list[str]:
        """Rows that train the baseline again and show the noise floor."""
        variants = [row.get("variant") for row in self.rows if row["label"] == self.baseline]
        return [r["label"] for r in self.rows if r.get("role") == "a/a" and r.get("variant") in variants]

    def row(self, label: str) -> Document:
        """Return what the plan says of a row."""
        return next(row for row in self.run.rows if row["label"] == label)

    def family(self, *families: str) -> list[Sweep]:
        """Return the shifts of some families; those that reproduce another convention are none of them."""
        return [sweep for sweep in self.sweeps if sweep.family in families and not sweep.convention]

    @property
    def conventions(self) -> list[Sweep]:
        """The shifts that reproduce another convention: never in a worst case, a mean or a ranking."""
        return [sweep for sweep in self.sweeps if sweep.convention]

    @property
    def summed(self) -> list[Sweep]:
        """The adversarial shifts that sum a board up: the worst cases, and attacks that are in none."""
        found = self.family("adversarial")
        inside = {member.shift for sweep in found for member in sweep.members}
        return [sweep for sweep in found if sweep.shift not in inside]

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
        numbers = {(sweep.shift, severity): place for severity, place in sweep.places().items()}
        name, heading = f"area:{sweep.shift}", f"{sweep.shift}, area to {sweep.severities[-1]}"
        if len(numbers) < len(sweep.severities) or len(set(numbers.values())) < len(numbers):
            return self.mean(name, heading, [sweep])
        clean = self.family("clean")
        if clean and min(numbers.values()) > 0:
            numbers[clean[0].shift, clean[0].severities[0]] = 0.0
        return self.accuracy(name, heading, trapezoid(numbers))

    @property
    def ladder(self) -> Sweep | None:
        """The attack that stands for all where there is no worst case: the first PGD curve, or the first attack."""
        attacks = [sweep for sweep in self.family("adversarial") if not sweep.members]
        ladders = [s for s in attacks if len(s.severities) > 1 and s.shift.startswith("pgd")]
        return next(iter([*ladders, *(s for s in attacks if s.shift.startswith("pgd")), *attacks]), None)

    @property
    def candidates(self) -> list[Measure]:
        """Measures that may sort the board: the first worst case, an attack that stands for all, clean accuracy."""
        worst = [sweep for sweep in self.family("adversarial") if sweep.members][:1]
        chosen = [*worst, *([self.ladder] if self.ladder else [])]
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
            found = [self.evidence.reading(model, measure) for model in self.run.models(label)]
            doubt = self.against(label, measure)
            self._readings[key] = [_broken(reading, doubt) for reading in found] if doubt.broken else found
        return self._readings[key]

    def doubt(self, label: str, measure: Measure) -> Doubt:
        """Return what speaks against a row's number: what the gates say, but that an accuracy of 0 is not too high."""
        found = self.against(label, measure)
        if not found.reason or found.broken or measure.metric != ACCURACY:
            return found
        values = [reading.value for reading in self.readings(label, measure) if reading.value is not None]
        return Doubt() if values and not any(values) else found

    def against(self, label: str, measure: Measure) -> Doubt:
        """Return what the gates say against a row's attacks, whatever they left; other numbers are not touched."""
        shifts = {shift for shift, _ in measure.weights}
        found = Doubt()
        for sweep in self.sweeps:
            if sweep.shift in shifts and sweep.family == "adversarial" and (label, sweep.norm) in self.credences:
                foreign = all(
                    self.run.declared("shifts", s.shift).get("chunk_coupled") for s in sweep.members or [sweep]
                )
                found = found.worse(self.credences[label, sweep.norm].doubt(sweep.knowledge, foreign))
        return found

    def estimate(self, label: str, measure: Measure) -> Estimate:
        """Return a row's number and its interval."""
        key = label, measure.name
        if key not in self._estimates:
            doubt = self.doubt(label, measure)
            found = estimate(self.readings(label, measure), measure, self.run.confidence)
            self._estimates[key] = replace(found, doubt="" if doubt.broken else doubt.reason)
        return self._estimates[key]

    def difference(self, label: str, other: str, measure: Measure) -> Difference:
        """Return one row minus another."""
        found = difference(self.readings(label, measure), self.readings(other, measure), measure, self.run.confidence)
        doubts = [
            f"{self.short(x)} suspect: {reason}" for x in (label, other) if (reason := self.doubt(x, measure).reason)
        ]
        return replace(found, doubt="; ".join(doubts))

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


def _broken(reading: Reading, doubt: Doubt) -> Reading:
    """Return a reading that is shown and never compared."""
    return reading if reading.status != "ok" else replace(reading, status="broken", reason=doubt.reason)


def board(run: Run) -> Board:
    """Read a run's records and outcomes and find its shifts; the rows are those of the first track."""
    evidence = Evidence(run, frame.records(run), frame.outcomes(run))
    planned = planned_sweeps(run)
    clean = [(s.shift, s.severities[0]) for s in planned if s.family == "clean" and not s.convention][:1]
    worst = worst_sweeps(run, planned)
    add_worst_cases(evidence, worst, clean)
    attacks = [s for s in planned if s.family == "adversarial"]
    before = planned.index(attacks[0]) if attacks else len(planned)
    sweeps = (*planned[:before], *worst, *planned[before:])
    return Board(run, evidence, sweeps, run.tracks[0], credences(run, evidence, planned, worst, clean))
