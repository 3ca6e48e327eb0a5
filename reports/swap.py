"""Mechanism swaps: what the attention of each of two rows does on the weights of the other, as a 2 x 2 table."""

from collections.abc import Iterator
from dataclasses import replace

from .board import Board, board
from .measure import Measure
from .ranking import means
from .run import Document, Run
from .table import Column, Entry, Table, differed, estimated, measured, words


def _label(own: str, other: str = "", control: bool = False) -> str:
    """Return a name for some weights under some attention; no row of a board can bear it."""
    return f"{own}\0{other}\0{'control' if control else ''}"


def pairs(run: Run) -> list[tuple[str, str]]:
    """Return the pairs that were swapped, each once, in the plan's order."""
    found: dict[frozenset[str], tuple[str, str]] = {}
    for cell in run.swaps:
        found.setdefault(frozenset((cell["label"], cell["swap"])), (cell["label"], cell["swap"]))
    return list(found.values())


def _relabelled(run: Run) -> Iterator[Document]:
    swapped = {cell["label"] for cell in run.swaps}
    for cell in run.planned:
        if cell["label"] in swapped and cell["family"] != "cost":
            yield {**cell, "label": _label(cell["label"])}
    for cell in run.swaps:
        yield {**cell, "label": _label(cell["label"], cell["swap"], cell["control"])}


def swap_board(run: Run) -> Board:
    """Return a board whose rows are weights under an attention, their own or another."""
    cells = list(_relabelled(run))
    labels = dict.fromkeys(cell["label"] for cell in cells)
    plan = {**run.plan, "cells": cells, "models": [], "rows": [{"label": label, "role": "swap"} for label in labels]}
    return board(replace(run, plan=plan, cells={**run.cells, **run.swapped}))


def swaps(run: Run) -> tuple[Table, ...]:
    """Return one 2 x 2 table a pair: rows say whose weights, columns whose attention."""
    if not run.swaps:
        return ()
    read = swap_board(run)
    return tuple(_table(read, index, first, second) for index, (first, second) in enumerate(pairs(run), 1))


def _table(read: Board, index: int, first: str, second: str) -> Table:
    columns = (
        *words("weights trained with", "measure"),
        Column("first", f"evaluated with {first}"),
        Column("second", f"evaluated with {second}"),
        Column("control", "with their own attention, logits moved as far"),
        Column("swap_minus_own", "swapped minus own"),
        Column("swap_minus_control", "swapped minus control"),
    )
    rows = []
    for own, other in ((first, second), (second, first)):
        for measure in means(read):
            kept, swapped, control = (_label(*place) for place in ((own,), (own, other), (own, other, True)))
            cells = [estimated(read.estimate(label, measure), measure) for label in (kept, swapped)]
            rows.append(
                (
                    Entry(own),
                    Entry(measured(measure).title),
                    *(cells if own == first else reversed(cells)),
                    _control(read, control, measure),
                    differed(read.difference(swapped, kept, measure), measure),
                    differed(read.difference(swapped, control, measure), measure),
                )
            )
    caption = (
        f"{first} and {second}: each row's weights under its own attention, under the other's, and under its own with "
        "logits moved at random as far as the other would move them, layer by layer and head by head, before anything "
        "propagates. What the control loses as well is no property of the other mechanism. Weights were trained once, "
        "not again after the swap."
    )
    return Table(f"swap-{index}", caption, columns, tuple(rows))


def _control(read: Board, label: str, measure: Measure) -> Entry:
    if label not in read.labels:
        return Entry("-", note="no control: one of the two has no logits to compare, or draws noise")
    return estimated(read.estimate(label, measure), measure)
