"""What is not there or cannot be believed, and why: nothing is left out in silence."""

from collections import Counter

from .board import Board
from .number import plural
from .run import Document, Model, Run
from .table import Column, Entry, Table, said, words


def missing(run: Run) -> Table:
    """Return the planned cells without a result, counted by row, shift and reason."""
    found: Counter[tuple[str, str, str]] = Counter()
    tries: Counter[tuple[str, str, str]] = Counter()
    for cell in run.planned:
        if cell["key"] not in run.cells:
            group = cell["label"], cell["shift"], run.why_missing(cell)
            found[group] += 1
            tries[group] += len(run.attempts.get(cell["key"], []))
    columns = (*words("row", "shift", "why"), Column("cells", "cells"), Column("attempts", "attempts"))
    rows = [
        (*said(group), Entry(str(count), value=count), Entry(str(tries[group]), value=tries[group]))
        for group, count in found.items()
    ]
    caption = f"Cells without a result: {sum(found.values()):,} of {len(run.planned):,}."
    return Table("missing", caption, columns, tuple(rows))


def inapplicable(run: Run) -> Table:
    """Return what was not planned since it makes no sense, with the reasons."""
    rows = [said([entry.get("label") or "-", entry.get("reason") or "-"]) for entry in run.inapplicable]
    return Table("not-applicable", "What makes no sense and was not planned.", words("what", "why"), tuple(rows))


def attempts(run: Run) -> Table:
    """Return every kind of failed attempt, including those that a later attempt made good."""
    cells = {cell["key"] for cell in run.planned}
    found: dict[tuple[str, ...], list[Document]] = {}
    for key, documents in run.attempts.items():
        for document in documents:
            again = "yes" if document.get("transient") else "no, --retry-failed does"
            done = "yes" if key in run.cells else "no" if key in cells else "-"
            what = [str(document.get(part) or "-") for part in ("kind", "label", "what", "reason")]
            found.setdefault((*what, again, done), []).append(document)
    columns = (
        *words("kind", "row", "what", "reason", "retried by the same command", "done since"),
        Column("attempts", "attempts"),
        *words("first started"),
    )
    rows = []
    for group, documents in found.items():
        first = min((str(document.get("started") or "-") for document in documents), default="-")
        rows.append((*said(group), Entry(str(len(documents)), value=len(documents)), *said([first])))
    return Table("attempts", "Attempts that failed, with their reasons.", columns, tuple(rows))


def doubts(board: Board) -> Table:
    """Return the records that are null or invalid, counted by row, shift, metric and reason."""
    records = board.evidence.records
    # A worst case has no cell of its own: what is wrong with it is said of the cells that it is made of.
    bad = records[(records.status != "ok") & (records.key != "")]
    keys = ["status", "label", "shift", "severity", "metric", "reason"]
    counted = Counter(bad[keys].itertuples(index=False, name=None))
    columns = (*words("status", "row", "shift", "severity", "metric", "reason"), Column("records", "records"))
    for model in board.run.mixed():
        why = (
            f"cells of fold {model.fold}, seed {model.seed} were measured on different weights; run it in a new folder"
        )
        counted["mixed", model.label, "", "", "", why] = 1
    rows = [(*said(x or "-" for x in group), Entry(str(n), value=n)) for group, n in counted.items()]
    return Table("doubts", "Numbers that are null or invalid, with their reasons.", columns, tuple(rows))


def summary(run: Run) -> list[str]:
    """Return in sentences how complete a run is."""
    done = len(run.cells)
    networks = {Model(c["label"], c["fold"], c["training_seed"]) for c in run.planned}
    lines = [
        f"{done:,} of {plural(len(run.planned), 'planned cell')} are done, for {plural(len(networks), 'network')}."
    ]
    never = sum(1 for c in run.planned if c["key"] not in run.cells and run.why_missing(c) == "not run yet")
    if failed := len(run.planned) - done - never:
        lines.append(f"{plural(failed, 'cell')} failed, {'was' if failed == 1 else 'were'} blocked or cannot be read.")
    if never:
        lines.append(f"{plural(never, 'cell')} not run yet; the same command resumes.")
    if run.strangers:
        lines.append(f"{plural(run.strangers, 'cell')} in the folder belong to another plan and are left out.")
    return lines
