"""The tracks of a run: what another way of training does to every row, each track ranked on its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from .board import Board
from .convention import conventions
from .fooled import fooled, middle
from .measure import Measure
from .minimum_norm import minimum_norms
from .ranking import differences, name, ranking
from .sheet import attacks, collapse, contaminations, corruptions, costs
from .table import Column, Entry, Table, differed, estimated, measured, words
from .verdict import Verdict, verdict


class Track(NamedTuple):
    """What one further way of training comes to."""

    recipe: str
    """Its name."""
    anchor: str
    """Where links lead, and how the names of its files begin."""
    verdict: Verdict
    """What may be concluded."""
    ranking: Table
    """Its board."""
    folded: tuple[Table, ...]
    """Everything else, as for the first track."""


def tracks(board: Board) -> tuple[Track, ...]:
    """Return the tracks after the first."""
    return tuple(_track(other, f"track-{number}") for number, other in enumerate(board.others, 2))


def _track(board: Board, anchor: str) -> Track:
    makers: tuple[Callable[[Board], Table], ...] = (fooled, minimum_norms, conventions)
    plain = (corruptions, contaminations, collapse, costs)
    found = [differences(board), *attacks(board), *(make(board) for make in (*makers, *plain))]
    said = f" Trained with {board.track}."

    def own(table: Table) -> Table:
        return replace(table, name=f"{anchor}-{table.name}", caption=table.caption + said)

    return Track(
        board.track, anchor, verdict(board), own(ranking(board)), tuple(own(table) for table in found if table.rows)
    )


def comparison(board: Board) -> Table:
    """Return every row under each way of training side by side: clean, under attack, and what the training changed."""
    clean = [board.at(sweep, sweep.severities[0]) for sweep in board.family("clean")[:1]]
    criterion = board.criterion
    single = _single(board, criterion)
    shown = [*clean, *single, *([criterion] if criterion and criterion.name not in {m.name for m in clean} else [])]
    columns = (
        *words("row", "trained with"),
        *(measured(measure) for measure in shown),
        *(Column(f"{m.name} minus first", f"{m.heading}, minus {board.track or 'the first'}", "points") for m in shown),
    )
    rows: list[tuple[Entry, ...]] = []
    others = board.others
    for row in board.rows if others else ():
        first = row["label"]
        lines = [(board, first), *((other, label) for other in others if (label := other.counterpart(row)))]
        for own, label in lines:
            numbers = [estimated(own.estimate(label, m), m) for m in shown]
            changes = [Entry("") if label == first else differed(board.difference(label, first, m), m) for m in shown]
            rows.append((name(board, first), Entry(own.track), *numbers, *changes))
    names = ", ".join(other.track for other in others)
    caption = (
        f"{board.track or 'The first training'} against {names}: every row under each way of training, paired by fold "
        "and seed. Rows of different tracks are never ranked "
        "against each other: what differs between them is the training, not the attention."
    )
    return Table("tracks", caption, columns, tuple(rows))


def _single(board: Board, criterion: Measure | None) -> list[Measure]:
    """Return the attack of the criterion at its middle severity; nothing where it is one number already."""
    shifts = {shift for shift, _ in criterion.weights} if criterion and len(criterion.weights) > 1 else set()
    sweeps = [sweep for sweep in board.family("adversarial") if sweep.shift in shifts and sweep.places()]
    return [board.at(sweep, middle(sweep)) for sweep in sweeps[:1]]
