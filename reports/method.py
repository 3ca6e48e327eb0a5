"""How a run was measured: its settings, what its names mean, and what its intervals say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .board import Board
from .run import Run


@dataclass(frozen=True, slots=True)
class Definition:
    """What one name means."""

    name: str
    """The name."""
    summary: str
    """What it is."""
    facts: tuple[tuple[str, str], ...]
    """Further facts, name by name."""
    warning: str = ""
    """A known defect."""


def _text(value: Any) -> str:
    """Return a setting as people write it: `epochs 6, batch 64`; lists with commas, a list of lists with semicolons."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{str(k).replace('_', ' ')} {_text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(v, (dict, list, tuple)) for v in value)
        return ("; " if nested else ", ").join(_text(v) for v in value)
    return str(value)


def settings(run: Run) -> list[tuple[str, str]]:
    """Return the resolved protocol, name by name."""
    hidden = {"name", "version", "draft", "question"}
    empty: tuple[object, ...] = (None, "", [], {})
    found = [(k.replace("_", " "), _text(v)) for k, v in run.protocol.items() if k not in hidden and v not in empty]
    given = [f"{w['row']}@{w['seed']}/{w['fold']} from {Path(w['path']).name} ({w['sha256'][:12]})" for w in run.given]
    whole = [row["label"] for row in run.rows if run.declared("variants", row["label"]).get("builds") == "network"]
    found += [("weights that were given, not trained here", _text(given))] if given else []
    return found + ([("networks used as they are, not trained here", _text(whole))] if whole else [])


def _facts(declared: dict[str, Any], names: str) -> tuple[tuple[str, str], ...]:
    found = [(name, declared.get(name)) for name in names.split()]
    return tuple((name.replace("_", " "), _text(x)) for name, x in found if x not in (None, "", [], {}, 0, False))


def definitions(run: Run) -> dict[str, list[Definition]]:
    """Return what the run's names mean, kind by kind, from the declarations it used."""
    found: dict[str, list[Definition]] = {}
    kinds = (
        ("task", "Task", "summary", "correct source digest version"),
        ("recipe", "Recipe", "summary", "settings source version"),
    )
    recipes = run.declarations("recipes")
    for kind, title, main, facts in kinds:
        if (declared := run.declarations(kind)) and not (kind == "recipe" and recipes):
            name = str(declared.get("name") or kind)
            found[title] = [Definition(name, _text(declared.get(main) or ""), _facts(declared, facts))]
    lists = (
        ("recipes", "Recipes", "summary", "settings source version"),
        ("variants", "Rows", "summary", "formula attention_map extra_parameters detaches settings source version"),
        ("shifts", "Shifts", "summary", "unit norm settings source version"),
        ("metrics", "Metrics", "definition", "unit better hook_point subsample null source version"),
    )
    for kind, title, main, facts in lists:
        found[title] = [
            Definition(
                name, _text(declared.get(main) or ""), _facts(declared, facts), str(declared.get("warning") or "")
            )
            for name, declared in run.declarations(kind).items()
            if isinstance(declared, dict)
        ]
    return {title: entries for title, entries in found.items() if entries}


def intervals(board: Board) -> list[str]:
    """Return the methods that made this report's intervals, each once."""
    return list(dict.fromkeys(method for each in (board, *board.others) for method in _methods(each)))


def _methods(board: Board) -> list[str]:
    measures = [m for m in (board.criterion, *board.candidates, board.collapse, *board.costs) if m is not None]
    for sweep in board.sweeps:
        measures += [board.at(sweep, severity) for severity in sweep.severities]
    found = [board.estimate(label, measure).method for measure in measures for label in board.labels]
    return [method for method in dict.fromkeys(found) if method]


def meanings(board: Board) -> list[str]:
    """Return what the columns mean, as far as the run has them."""
    found = [
        "Area to x is the area under accuracy against severity, from clean input at 0 to x, over x (trapezoid rule): "
        "accuracy averaged over strengths up to x. Means over corruptions and contaminations average the severities of "
        "each, then the kinds. A mean with a part missing is not shown."
    ]
    attacks = board.family("adversarial")
    if any(sweep.members for sweep in attacks):
        found.append(
            "A ball is all inputs no farther from the clean one than the severity says, by the norm it is named for. "
            "Worst case: a sample is right only where it is right under every attack of the ball. Of a network that "
            "always answers alike, what fell at a smaller severity, or without an attack, counts as fallen at the "
            "larger ones. Of one that draws noise, a sample counts with the share of right passes under the attack "
            "that fools it most: one half of the passes picks the attack and the other half judges it, both ways, and "
            "the two are averaged. A smallest share judged on the passes that picked it would be too low by chance; "
            "this one is too high, by little, where half of the passes cannot tell the attacks apart. Cells that say "
            "nothing of halves, as older ones do, count with the smallest share."
        )
    if board.credences:
        found.append(
            "Suspect: a gate found a reason to think the number too high. It is shown, ranked and marked. Broken: the "
            "number means nothing until the reason is removed. It is shown and marked, and neither ranked nor "
            "compared. What a gate doubts is said under Trust: doubts about gradients touch attacks that use them, and "
            "worst cases that contain one. Thresholds are exact binomial bounds at the size of the sample."
        )
    if any(len(sweep.severities) > 1 or sweep.minimum_norm for sweep in attacks):
        found.append(
            "Median size: half of the samples fall to a smaller perturbation. Samples that are wrong without one count "
            "0. The interval lies between two order statistics, by the binomial law of how many samples lie below the "
            "median; over several networks it is that of their medians."
        )
    return found
