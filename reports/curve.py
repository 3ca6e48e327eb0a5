"""Accuracy against severity, one panel a shift."""

import textwrap
from collections.abc import Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .board import Board
from .estimate import Estimate
from .figure import FAINT, Figure, datum, drawing, finished, legend, line, looks, plain, styled
from .sweep import Sweep

LETTER, MARGIN = 0.075, 0.4
"""Inches that a letter of an axis label takes, and that stay free between two panels."""
CHANCE: dict[str, Any] = {"color": FAINT, "ls": (0, (1, 2)), "lw": 1.2}


def _points(board: Board, sweep: Sweep, label: str) -> list[tuple[float, str, Estimate]]:
    """Return place, severity and accuracy; clean accuracy stands at zero, severities that are words at 1, 2, 3, ..."""
    found = []
    clean = board.family("clean")
    known = list(sweep.places().values())
    if len(known) < len(sweep.severities):
        known = [float(i + 1) for i in range(len(sweep.severities))]
    if clean and known and min(known) > 0:
        found.append((0.0, "0", board.estimate(label, board.at(clean[0], clean[0].severities[0]))))
    for place, severity in zip(known, sweep.severities, strict=True):
        found.append((place, severity, board.estimate(label, board.at(sweep, severity))))
    return found


def _panel(axes: Axes, board: Board, sweep: Sweep, inches: float, data: list[dict[str, Any]]) -> None:
    known = looks(board)
    ticks: dict[float, str] = {}
    labels = board.labels
    for index, label in enumerate(labels):
        points = _points(board, sweep, label)
        data += [datum(e, shift=sweep.shift, severity=s, row=label) for _, s, e in points]
        width = max((x for x, _, _ in points), default=1.0) or 1.0
        nudge = width * 0.008 * (index - (len(labels) - 1) / 2)
        ticks |= {x: s for x, s, _ in points}
        line(axes, [(x + nudge, e) for x, _, e in points], known[label], 100.0)
    if board.chance is not None:
        axes.axhline(100 * board.chance, **CHANCE)
    axes.set_xticks(list(ticks), [plain(text) for text in ticks.values()])
    if len(ticks) > 1 and (len(ticks) > 5 or max(map(len, ticks.values())) > 4):
        axes.tick_params(axis="x", labelrotation=40)
    axes.set_xlabel(plain(textwrap.fill(sweep.unit or "severity", int((inches - MARGIN) / LETTER))))


def curve(board: Board, name: str, sweeps: Sequence[Sweep], title: str) -> Figure:
    """Return accuracy against severity for some shifts."""
    columns = min(len(sweeps), 3 if len(sweeps) <= 6 else 5)
    rows = ceil(len(sweeps) / columns)
    data: list[dict[str, Any]] = []
    small, width = columns > 3, 9.2 if columns > 1 else 6.4
    with styled(name):
        drawn = drawing(rows, columns, width, 0.75 + rows * (2.1 if small else 2.9), sharey=True)
        for index, (axes, sweep) in enumerate(zip(drawn.panels, sweeps, strict=False)):
            _panel(axes, board, sweep, width / columns, data)
            axes.set_title(
                plain(textwrap.fill(sweep.shift, 27, break_long_words=False)), fontsize=7.5 if small else 9.5
            )
            axes.set_ylim(-2, 102)
            if index % columns == 0:
                axes.set_ylabel("accuracy (%)  higher is better \N{RIGHTWARDS ARROW}", fontsize=8 if small else 9)
        for axes in drawn.panels[len(sweeps) :]:
            axes.set_visible(False)
        chance = [Line2D([], [], label="chance", **CHANCE)] if board.chance is not None else []
        legend(drawn.canvas, board, board.labels, chance)
        shifts = ", ".join(sweep.shift for sweep in sweeps)
        caption = (
            f"{title}. Bars are {100 * board.run.confidence:g} % intervals; rows are nudged sideways so that bars can "
            "be told apart. Invalid, broken and missing numbers are left out of lines and listed in the tables."
        )
        doubted = any(
            board.estimate(label, board.at(sweep, severity)).doubt
            for sweep in sweeps
            for severity in sweep.severities
            for label in board.labels
        )
        caption += " Hollow markers are suspect." if doubted else ""
        alt = f"Line chart of accuracy in percent against severity under {shifts}, one line for each of: "
        return finished(drawn, name, title, caption, f"{alt}{', '.join(board.labels)}.", data)
