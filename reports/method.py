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
    for kind, title, main, facts in kinds:
        if declared := run.declarations(kind):
            name = str(declared.get("name") or kind)
            found[title] = [Definition(name, _text(declared.get(main) or ""), _facts(declared, facts))]
    lists = (
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
    measures = [m for m in (board.criterion, *board.candidates, board.collapse, *board.costs) if m is not None]
    for sweep in board.sweeps:
        measures += [board.at(sweep, severity) for severity in sweep.severities]
    found = [board.estimate(label, measure).method for measure in measures for label in board.labels]
    return [method for method in dict.fromkeys(found) if method]
