"""Run folders made by hand, written through the store as a run would."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attnbench.results.store import Store

LAYERS = (0, 1, 2)
UNITS = {
    "clean": "none",
    "pgd": "eps (L-inf, pixels)",
    "fgsm": "eps (L-inf, pixels)",
    "blur": "level",
    "patch": "share",
}
FAMILIES = {
    "clean": "clean",
    "pgd": "adversarial",
    "fgsm": "adversarial",
    "blur": "corruption",
    "patch": "contamination",
}
METRICS = {
    "accuracy": {
        "name": "accuracy",
        "needs": "outputs",
        "lowest": 0.0,
        "highest": 1.0,
        "unit": "1",
        "better": "higher",
        "definition": "share of samples whose largest logit is the true class",
        "source": "none needed",
        "null": "1/classes",
    },
    "token_cosine": {
        "name": "token_cosine",
        "needs": "tokens",
        "lowest": -1.0,
        "highest": 1.0,
        "unit": "1",
        "better": "neither",
        "definition": "mean cosine of two different tokens",
        "source": "arXiv:2406.13770",
        "null": "0",
        "hook_point": "read",
    },
    "parameters": {
        "name": "parameters",
        "needs": "model",
        "unit": "1",
        "better": "lower",
        "definition": "trained numbers",
    },
}
PROVENANCE = {
    "attnbench": "0.1.0",
    "commit": "abc",
    "python": "3.11",
    "packages": {"torch": "2.9"},
    "system": "Linux",
    "processor": "A processor",
    "threads": 1,
    "device": "cpu",
    "started": "2030-01-02T03:04:05+00:00",
}


def key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass
class Plan:
    """A run to be written: correct answers by row, fold, seed, shift and severity."""

    labels: tuple[str, ...] = ("softmax", "softmax (A/A)", "l2")
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    shifts: Mapping[str, tuple[tuple[str, ...], ...]] = field(
        default_factory=lambda: {
            "clean": (("0",),),
            "pgd": (("0.1", "0.2"),),
            "blur": (("1",), ("2",)),
            "patch": (("0.5",),),
        }
    )
    """For each shift, the severities of each of its cells."""
    baseline: str | None = "softmax"
    samples: int = 10
    costs: bool = True
    chance: float | None = 0.1
    correct: Callable[..., Sequence[float]] = lambda label, fold, seed, shift, severity: (1.0,) * 8 + (0.0,) * 2
    cosine: Callable[..., float] = lambda label, layer, sample: 0.1 * layer + 0.01 * sample
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What else the plan says of the cells of some shifts."""
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What else the declarations of some shifts say."""
    facts: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda cell: {}
    """Further facts of a cell."""
    sizes: Callable[[str, str], Sequence[float]] | None = None
    """Sizes of the perturbations under a shift at a severity, by sample."""
    first: Callable[..., Sequence[float]] | None = None
    """Shares of right passes among the first half, asked for like `correct`; None where cells do not say."""
    trust: int | None = None
    """Test samples on which adversarial numbers are examined; None where the protocol does not say."""
    tracks: tuple[str, ...] = ()
    """Recipes, where there are several; labels name the second and further ones in brackets."""

    def cells(self) -> list[dict[str, Any]]:
        found = []
        groups = [*self.shifts.items(), *([("cost", ((),))] if self.costs else [])]
        for label in self.labels:
            for fold in self.folds:
                for seed in self.seeds:
                    for shift, cells in groups:
                        name = shift.partition("(")[0]
                        for severities in cells:
                            found.append(
                                {
                                    "key": key(label, fold, seed, shift, severities),
                                    "model": key(label, fold, seed),
                                    "label": label,
                                    "fold": fold,
                                    "training_seed": seed,
                                    "shift": shift,
                                    "family": FAMILIES.get(name, "cost"),
                                    "severities": list(severities),
                                    "unit": UNITS.get(name, "none"),
                                    **self.about.get(shift, {}),
                                }
                            )
        return found

    def row(self, label: str) -> dict[str, Any]:
        role = "a/a" if "A/A" in label else "control" if "matched" in label else "variant"
        variant = label.partition(" ")[0]
        named = [track for track in self.tracks if label.endswith(f" [{track}]")]
        trained = {"track": [*named, self.tracks[0]][0]} if self.tracks else {}
        return {
            **trained,
            "label": label,
            "variant": variant,
            "settings": {},
            "family": variant,
            "role": role,
            "control_for": [],
            "donor": None,
        }

    def run(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "protocol": {
                "name": "tiny",
                "version": 0,
                "draft": True,
                "question": "Is l2 attention more robust?",
                "task": "digits",
                "backbone": {"dim": 64},
                "recipe": "standard",
                "noise_seed": 1,
                **({} if self.trust is None else {"trust": self.trust}),
                "training_seeds": list(self.seeds),
                "folds": list(self.folds),
                "statistics": {"baseline": self.baseline, "confidence": 0.95},
            },
            "rows": [self.row(label) for label in self.labels],
            "models": [
                {"key": key(label, fold, seed), "label": label, "fold": fold, "training_seed": seed}
                for label in self.labels
                for fold in self.folds
                for seed in self.seeds
            ],
            "cells": self.cells(),
            "declarations": {
                "variants": {
                    label: {"name": label, "summary": "An attention.", "source": "a paper"} for label in self.labels
                },
                "shifts": {
                    s: {
                        **{"name": s, "summary": f"What {s} does.", "source": "a paper", "warning": ""},
                        **self.declared.get(s, {}),
                    }
                    for s in self.shifts
                },
                "metrics": METRICS,
                "task": {"name": "digits", "chance": self.chance, "summary": "Digits.", "source": "sklearn"},
                "recipe": {"name": "standard", "summary": "Plain training."},
            },
        }

    def document(self, cell: Mapping[str, Any]) -> tuple[dict[str, Any], pa.Table | None]:
        """Return a cell as a run would have written it."""
        records: list[dict[str, Any]] = []
        columns: dict[str, list[Any]] = {name: [] for name in ("sample", "rung", "severity", "target", "correct")}
        columns |= {f"token_cosine@read.{layer}": [] for layer in LAYERS}
        common = {"better": "neither", "point": "", "layer": None, "deviation": None, "status": "ok", "reason": ""}
        where = cell["label"], cell["fold"], cell["training_seed"], cell["shift"]
        for rung, severity in enumerate(cell["severities"]):
            right = [float(x) for x in self.correct(*where, severity)]
            n = len(right)
            about = {**common, "severity": severity, "n": n}
            records.append({**about, "metric": "accuracy", "value": sum(right) / n, "unit": "1", "better": "higher"})
            columns["sample"] += [f"s{i:03}" for i in range(n)]
            columns["rung"] += [rung] * n
            columns["severity"] += [severity] * n
            columns["target"] += [i % 10 for i in range(n)]
            columns["correct"] += right
            if self.first:
                columns.setdefault("correct_first", []).extend(self.first(*where, severity))
            if self.sizes:
                columns.setdefault("norm", []).extend(self.sizes(cell["shift"], severity))
            for layer in LAYERS:
                values = [self.cosine(cell["label"], layer, i) for i in range(n)]
                mean = sum(values) / n
                deviation = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
                layered = {
                    "metric": "token_cosine",
                    "value": mean,
                    "deviation": deviation,
                    "layer": layer,
                    "point": "read",
                }
                records.append({**about, "unit": "1", **layered})
                columns[f"token_cosine@read.{layer}"] += values
        table = pa.table(columns)
        if self.first:
            for name in ("correct", "correct_first"):
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, table[name].cast(pa.float32()))
        if cell["family"] == "trust":
            records, table = [], None
        if cell["shift"] == "cost":
            table = None
            records = [
                {
                    **common,
                    "metric": "parameters",
                    "value": 203434.0,
                    "unit": "1",
                    "better": "lower",
                    "n": 1,
                    "severity": "",
                }
            ]
        return {
            "schema": 1,
            "key": cell["key"],
            "cell": {},
            "records": records,
            "timing": {"total": 1.5},
            "provenance": PROVENANCE,
            "facts": {"passes": 1, "deterministic": True, "severities": [], **self.facts(cell)},
        }, table

    def write(self, root: Path, keep: Callable[[Mapping[str, Any]], bool] = lambda cell: True) -> Store:
        """Write the run; `keep` says which cells are done."""
        store = Store(root)
        store.create()
        store.publish_run(self.run())
        for cell in self.cells():
            if keep(cell):
                store.publish_cell(cell["key"], *self.document(cell))
        return store


@pytest.fixture(scope="session")
def plan() -> type[Plan]:
    return Plan
