"""Numbers as other papers define them: reproduced, marked, and set beside the standard ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from .board import Board
from .ranking import name
from .run import Model
from .sheet import warning
from .sweep import Sweep
from .table import Column, Entry, Table, estimated, said, words


def conventions(board: Board) -> Table:
    """Return a line for each convention, row and severity: what it is in pixels, and the nearest standard number."""
    columns = (
        *words("shift", "as in", "row", "severity"),
        Column("pixel_eps", "that is, in pixels"),
        Column("largest", "largest change measured, pixels"),
        Column("lowest_pixel", "lowest pixel"),
        Column("highest_pixel", "highest pixel"),
        Column("accuracy", "accuracy", "%", "higher"),
        *words("nearest standard"),
        Column("standard", "accuracy there", "%", "higher"),
    )
    rows = []
    for sweep in board.conventions:
        for label in board.order:
            for severity in sweep.severities:
                rows.append(_line(board, sweep, label, severity))
    caption = (
        "Non-standard conventions: numbers as other papers define them, reproduced to be compared with theirs. They "
        "are in no worst case, no mean and no ranking. Beside each number stand its strength in pixels, and what the "
        "row reads under a standard attack of the nearest strength."
    )
    return Table("conventions", caption, columns, tuple(rows))


def _line(board: Board, sweep: Sweep, label: str, severity: str) -> tuple[Entry, ...]:
    facts = severity_facts(board, label, sweep, severity)
    ends: dict[str, Any] = {"pixel_eps": max, "largest_perturbation": max, "lowest_pixel": min, "highest_pixel": max}
    found = {key: _extreme(facts, key, choose) for key, choose in ends.items()}
    notes = dict.fromkeys([warning(board, sweep), *(str(fact.get("note") or "") for fact in facts)])
    measure = board.at(sweep, severity)
    pixels = [Entry("-" if x is None else f"{x:.4g}", value=x) for x in found.values()]
    return (
        Entry(sweep.shift, value=sweep.shift, note="; ".join(note for note in notes if note), chip="non-standard"),
        *said([sweep.convention]),
        name(board, label),
        *said([severity]),
        *pixels,
        estimated(board.estimate(label, measure), measure),
        *_standard(board, sweep, label, found["pixel_eps"]),
    )


def severity_facts(board: Board, label: str, sweep: Sweep, severity: str) -> list[Mapping[str, Any]]:
    """Return what the cells of all networks of a row say of one severity."""
    found = []
    for model in board.run.models(label):
        cell = board.evidence.cell(Model(*model), (sweep.shift, severity))
        for fact in (board.run.facts(cell).get("severities") or []) if cell else []:
            if fact.get("severity") == severity:
                found.append(fact)
    return found


def _extreme(facts: Iterable[Mapping[str, Any]], key: str, choose: Any) -> float | None:
    known = [float(fact[key]) for fact in facts if isinstance(fact.get(key), int | float)]
    return choose(known) if known else None


def nearest(board: Board, sweep: Sweep, eps: float) -> tuple[Sweep, str] | None:
    """Return the standard attack and its severity that lie nearest to a strength in pixels; None without one.

    It is one of the same ball: the attack that the convention's own settings name, else the worst case, else the first.
    """
    same = [s for s in board.family("adversarial") if s.norm == sweep.norm and s.places()]
    settings = board.run.declared("shifts", sweep.shift).get("settings") or {}
    alike = [s for s in same if not s.members and s.shift.partition("(")[0] in settings.values()]
    chosen = next(iter([*alike, *(s for s in same if s.members), *same]), None)
    if chosen is None:
        return None
    places = chosen.places()
    return chosen, min(places, key=lambda severity: abs(places[severity] - eps))


def _standard(board: Board, sweep: Sweep, label: str, eps: float | None) -> tuple[Entry, Entry]:
    found = None if eps is None else nearest(board, sweep, eps)
    if found is None:
        return Entry("-"), Entry(
            "-", note="no standard attack of the same ball" if eps is not None else "eps not stated"
        )
    measure = board.at(*found)
    return Entry(measure.heading), estimated(board.estimate(label, measure), measure)
