"""Numbers as other papers define them: reproduced, marked, and set beside the standard ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from .board import Board
from .ranking import name
from .run import Model
from .sheet import warning
from .sweep import Sweep
from .table import Column, Entry, Table, estimated, said, words

ALIKE = 1.5
"""Factor up to which two strengths count as much alike."""


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
        "row reads under a standard attack of the nearest strength above 0; where the two strengths are more than "
        f"{ALIKE:g} times apart, that is said."
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
        *_standard(board, sweep, label, severity, found["pixel_eps"]),
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
    """Return the standard attack and its severity above 0 that lie nearest to a strength in pixels; None without one.

    It is one of the same ball: the attack that the convention's own settings name, else the worst case, else the first.
    """
    same = [s for s in board.family("adversarial") if s.norm == sweep.norm and _above_zero(s)]
    settings = board.run.declared("shifts", sweep.shift).get("settings") or {}
    alike = [s for s in same if not s.members and s.shift.partition("(")[0] in settings.values()]
    chosen = next(iter([*alike, *(s for s in same if s.members), *same]), None)
    if chosen is None:
        return None
    places = _above_zero(chosen)
    return chosen, min(places, key=lambda severity: abs(places[severity] - eps))


def _above_zero(sweep: Sweep) -> dict[str, float]:
    return {severity: place for severity, place in sweep.places().items() if place > 0}


def apart(standard: float, eps: float) -> str:
    """Say how much larger a standard strength is than a convention's; empty where they are much alike.

    >>> apart(0.3, 0.1), apart(0.1, 0.31), apart(0.1, 0.08)
    (', 3 times as large', ', 3.1 times as small', '')
    """
    ratio = standard / eps
    if 1 / ALIKE <= ratio <= ALIKE:
        return ""
    return f", {ratio:.2g} times as large" if ratio > 1 else f", {1 / ratio:.2g} times as small"


def _standard(board: Board, sweep: Sweep, label: str, severity: str, eps: float | None) -> tuple[Entry, Entry]:
    found = nearest(board, sweep, eps) if eps else None
    if found is None or not eps:
        return Entry("-"), Entry("-", note=_without(board, sweep, label, severity, eps))
    chosen, at = found
    measure = board.at(chosen, at)
    heading = measure.heading + apart(chosen.places()[at], eps)
    return Entry(heading), estimated(board.estimate(label, measure), measure)


def _without(board: Board, sweep: Sweep, label: str, severity: str, eps: float | None) -> str:
    """Say why no standard number stands beside a convention's."""
    if eps is not None:
        return "no standard attack of the same ball" if eps else "nothing moves at 0"
    own = board.estimate(label, board.at(sweep, severity))
    return own.reason if own.value is None else "eps not stated"
