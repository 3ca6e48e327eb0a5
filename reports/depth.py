"""How alike the tokens are, layer by layer, on clean and on shifted inputs."""

import textwrap
from typing import Any

from matplotlib.axes import Axes

from .board import Board
from .figure import Figure, datum, drawing, finished, legend, line, looks, plain, styled
from .sheet import at_layer, conditions

HINTS = {"higher": "  higher is better \N{RIGHTWARDS ARROW}", "lower": "  \N{LEFTWARDS ARROW} lower is better"}


def _panel(axes: Axes, board: Board, metric: str, title: str, weights: dict[tuple[str, str], float]) -> list[Any]:
    """Draw one metric under one condition and return its data."""
    known, data, layers = looks(board), [], board.layers(metric)
    for index, label in enumerate(board.labels):
        look, nudge = known[label], 0.05 * (index - (len(board.labels) - 1) / 2)
        found = [(n, board.estimate(label, at_layer(board, metric, title, weights, n))) for n in layers]
        data += [datum(e, metric=metric, input=title, row=label, layer=n) for n, e in found]
        line(axes, [(n + nudge, e) for n, e in found], look)
    axes.set_xticks(layers)
    return data


def depth(board: Board) -> Figure:
    """Return every metric of hidden states by layer: one line of panels a metric, one panel a kind of input."""
    metrics = board.layer_metrics
    columns = max(len(conditions(board, metric)) for metric in metrics)
    data: list[dict[str, Any]] = []
    name, title = "collapse", "Collapse by layer"
    with styled(name):
        size = 0.9 + 2.1 * len(metrics)
        drawn = drawing(len(metrics), columns, max(4.6, 2.3 * columns), size, sharex=True, sharey="row")
        for row, metric in enumerate(metrics):
            panels = drawn.panels[row * columns : (row + 1) * columns]
            found = conditions(board, metric)
            for axes, (condition, weights) in zip(panels, found, strict=False):
                if weights:
                    data += _panel(axes, board, metric, condition, weights)
                else:
                    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
                if row == 0:
                    axes.set_title(plain(textwrap.fill(condition, 24)))
                if row == len(metrics) - 1:
                    axes.set_xlabel("layer")
            for axes in panels[len(found) :]:
                axes.set_visible(False)
            measure = board.measure(metric, metric, metric, {}, board.layers(metric)[-1])
            unit = f" ({measure.unit})" if measure.unit not in {"1", "none", ""} else ""
            hint = HINTS.get(measure.better, "\nno direction is better")
            panels[0].set_ylabel(f"{metric.replace('_', ' ')}{unit}{hint}", fontsize=8.5)
        legend(drawn.canvas, board, board.labels)
        caption = (
            "Collapse by layer on clean and on the hardest shifted inputs. Each layer is what the next attention "
            "reads; the last layer is what the head reads. Bars are intervals of the mean over inputs or networks."
        )
        alt = f"Line charts of {', '.join(metrics)} against layer for {', '.join(board.labels)}."
        return finished(drawn, name, title, caption, alt, data)
