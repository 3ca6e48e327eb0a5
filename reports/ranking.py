"""The rows of the board side by side, as far apart as their intervals say and no further."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from .board import Board
from .measure import Measure
from .number import p_value
from .sweep import Sweep
from .table import Column, Entry, Table, differed, estimated, measured, words


class Rank(NamedTuple):
    """The places that a row may hold."""

    first: int
    """One more than the rows whose intervals lie wholly above its own."""
    last: int
    """The number of rows less those whose intervals lie wholly below its own."""

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}\N{EN DASH}{self.last}"


def ranks(board: Board, measure: Measure) -> dict[str, Rank]:
    """Return the places of the rows with a valid number; one without an interval may hold any."""
    ends = {}
    for label in board.labels:
        found = board.estimate(label, measure)
        if found.value is not None and found.status == "ok":
            low = -inf if found.low is None else found.low
            high = inf if found.high is None else found.high
            ends[label] = (low, high) if measure.better != "lower" else (-high, -low)
    return {
        label: Rank(
            1 + sum(other[0] > high for other in ends.values()),
            len(ends) - sum(other[1] < low for other in ends.values()),
        )
        for label, (low, high) in ends.items()
    }


def chip(board: Board, label: str) -> str:
    """Return the word that stands beside a row's name."""
    if label == board.baseline:
        return "baseline"
    role = str(board.row(label).get("role") or "")
    return {"a/a": "A/A", "control": "control"}.get(role, "")


def name(board: Board, label: str) -> Entry:
    """Return the entry that opens a row; files hold its whole name."""
    return Entry(board.short(label), value=label, chip=chip(board, label))


def means(board: Board, attacks: Sequence[Sweep] | None = None) -> list[Measure]:
    """Return the measures that sum a board up: clean, attacks, mean under corruptions and contaminations.

    Attacks of one ball stand as their worst case unless others are asked for.
    """
    found = [board.at(sweep, sweep.severities[0]) for sweep in board.family("clean")]
    for sweep in board.summed if attacks is None else attacks:
        found.append(board.curve(sweep))
        if len(sweep.severities) > 1:
            found.append(board.at(sweep, sweep.severities[len(sweep.severities) // 2]))
    for family, noun in (
        ("corruption", "corruptions"),
        ("contamination", "contamination"),
        ("natural", "natural shifts"),
    ):
        if sweeps := board.family(family):
            found.append(board.mean(f"mean:{family}", f"{noun}, mean", sweeps))
    return found


def ranking(board: Board) -> Table:
    """Return the board, sorted by its criterion, which comes first."""
    criterion, collapse = board.criterion, board.collapse
    measures = [m for m in means(board) if criterion is None or m.name != criterion.name]
    measures = [*([criterion] if criterion else []), *measures, *([collapse] if collapse else [])]
    measures += [m for m in board.costs if m.metric == "parameters"]
    places = ranks(board, criterion) if criterion else {}
    columns = [*words("row"), Column("place", "places it may hold", words=True)]
    columns += [measured(m, bars=m.layer >= 0 or m.share) for m in measures]
    rows = [
        (
            name(board, label),
            Entry(str(places.get(label, "-"))),
            *(estimated(board.estimate(label, m), m) for m in measures),
        )
        for label in board.order
    ]
    sort = f"Sorted by {criterion.heading}" if criterion else "Nothing is measured yet; rows in the plan's order"
    members = " ".join(composition(sweep) for sweep in board.family("adversarial") if sweep.members)
    caption = (
        f"The board. {sort}. Brackets are {100 * board.run.confidence:g} % intervals; rows whose intervals overlap may "
        f"hold the same places. {members}"
    )
    return Table("ranking", caption.strip(), tuple(columns), tuple(rows))


def composition(sweep: Sweep) -> str:
    """Say which attacks are in a worst case, and at which severities where that is not all of them."""
    places = set(sweep.places().values())
    said = []
    for member in sweep.members:
        known = member.places()
        some = "" if set(known.values()) == places else f" (at {', '.join(known)} only)"
        said.append(f"{member.shift}{some}")
    return f"{sweep.shift[:1].upper()}{sweep.shift[1:]}: a sample is right only if right under {', '.join(said)}."


def differences(board: Board) -> Table:
    """Return every row minus the baseline on the measures that sum a board up; empty without a baseline."""
    base = board.baseline
    measures = means(board, board.family("adversarial"))
    if board.collapse:
        measures.append(board.collapse)
    columns = (
        *words("row", "measure"),
        Column("difference", "difference (points or units)"),
        Column("p", "p, not corrected"),
        Column("detectable", "smallest difference that would show"),
        Column("pairs", "pairs of networks"),
        Column("samples", "paired samples"),
        *words("method"),
    )
    rows = []
    for label in [x for x in board.order if base and x != base]:
        for measure in measures:
            found = board.difference(label, str(base), measure)
            least = found.detectable
            text = "-" if least is None else f"{100 * least:.1f}" if measure.share else f"{least:.3f}"
            rows.append(
                (
                    name(board, label),
                    Entry(measured(measure).title),
                    differed(found, measure),
                    Entry(p_value(found.p), value=found.p),
                    Entry(text, value=least),
                    Entry(str(found.n_pairs or "-"), value=found.n_pairs),
                    Entry(f"{found.n_samples:,}" if found.n_samples else "-", value=found.n_samples),
                    Entry(found.method or "-"),
                )
            )
    caption = (
        f"Each row minus {board.short(base)}, paired. The smallest difference that would show is what this much data "
        "finds four times out of five."
        if base
        else "No baseline was planned, so nothing is compared."
    )
    return Table("differences", caption, columns, tuple(rows))
