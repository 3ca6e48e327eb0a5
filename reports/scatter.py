"""Robustness against what may explain it or what it costs, one point a row."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .board import Board
from .depth import HINTS
from .figure import Figure, datum, drawing, finished, legend, looks, plain, reach, styled
from .measure import Measure
from .number import shown


def _axis(measure: Measure, wrap: bool) -> str:
    """Return the words of an axis: name, unit, direction."""
    unit = "%" if measure.share else "" if measure.unit in {"1", "none", "", measure.heading} else measure.unit
    hint = HINTS.get(measure.better, "" if measure.metric == "parameters" else "  no direction is better")
    text = plain(f"{measure.heading}{f' ({unit})' if unit else ''}")
    return f"{text}\n{hint.strip()}" if wrap else f"{text}{hint}"


def _panel(axes: Axes, board: Board, x: Measure, y: Measure) -> list[dict[str, Any]]:
    """Draw one point a row and return the data."""
    known, data = looks(board), []
    for label in board.labels:
        look, a, b = known[label], board.estimate(label, x), board.estimate(label, y)
        data += [datum(a, row=label, measure=x.name), datum(b, row=label, measure=y.name)]
        if a.value is None or b.value is None or (a.status, b.status) != ("ok", "ok"):
            continue
        scales = [100.0 if m.share else 1.0 for m in (x, y)]
        fill = "white" if label in board.twins or a.doubt or b.doubt else look.color
        axes.errorbar(
            [scales[0] * a.value],
            [scales[1] * b.value],
            xerr=reach([a], scales[0]),
            yerr=reach([b], scales[1]),
            color=look.color,
            marker=look.marker,
            markerfacecolor=fill,
            ms=7,
            elinewidth=1,
            capsize=0,
        )
    axes.set_xlabel(_axis(x, wrap=True))
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:g}" if x.share else shown(place)))
    return data


def scatter(board: Board, name: str, xs: Sequence[Measure], y: Measure, title: str, caption: str) -> Figure:
    """Return one measure against several others, in panels that share its axis."""
    data: list[dict[str, Any]] = []
    columns = min(4, len(xs))
    with styled(name):
        drawn = drawing(1, columns, min(9.2, 1 + 3.6 * columns), 3.9, sharey=True)
        for axes, x in zip(drawn.panels, xs, strict=False):
            data += _panel(axes, board, x, y)
        drawn.panels[0].set_ylabel(_axis(y, wrap=len(y.heading) > 24))
        legend(drawn.canvas, board, board.labels)
        alt = f"Scatter charts of {y.heading} against {', '.join(x.heading for x in xs[:columns])}; one point a row."
        return finished(drawn, name, title, caption, alt, data)
