"""One figure: a drawing that is the same on every run, its words, and the data behind it."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from .board import Board
from .estimate import Estimate

INK, FAINT, GRID = "#22262b", "#6b7280", "#e5e7eb"
MARKERS = "osD^vPX<>*"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9ca3af",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure."""

    name: str
    """Name of its files."""
    title: str
    """What it is."""
    caption: str
    """What it shows and how to read it."""
    alt: str
    """The same for those who cannot see it."""
    svg: str
    """The drawing."""
    png: bytes
    """The drawing as pixels."""
    data: pd.DataFrame
    """The numbers behind it."""


class Look(NamedTuple):
    """How a row is drawn, everywhere the same."""

    color: Any
    """Its colour."""
    marker: str
    """Its marker."""
    dash: str
    """Its line."""
    width: float
    """Width of its line."""


class Drawing(NamedTuple):
    """A canvas and its panels."""

    canvas: Canvas
    """The whole."""
    panels: list[Axes]
    """Its panels, row by row."""


def looks(board: Board) -> dict[str, Look]:
    """Return the look of each row: the baseline black, its twins grey and dashed, the rest colour-blind safe."""
    palette = [c for i, c in enumerate(sns.color_palette("colorblind", 10)) if i not in (7, 8)]
    found, others = {}, 0
    for label in board.labels:
        if label == board.baseline:
            found[label] = Look(INK, "o", "-", 2.0)
        elif label in board.twins:
            found[label] = Look("#7d838c", "o", "--", 1.5)
        else:
            dash = ("-", "-.", ":")[others // len(palette) % 3]
            found[label] = Look(palette[others % len(palette)], MARKERS[1 + others % (len(MARKERS) - 1)], dash, 1.5)
            others += 1
    return found


@contextmanager
def styled(name: str) -> Iterator[None]:
    """Draw in the house style, and leave the style of the caller as it was."""
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        yield


def drawing(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> Drawing:
    """Return a canvas in inches with a grid of panels."""
    canvas = Canvas(figsize=(width, height), dpi=150)
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(rows, columns, squeeze=False, **kwargs)
    return Drawing(canvas, [panel for line in axes for panel in line])


def legend(canvas: Canvas, board: Board, labels: Sequence[str], extra: Sequence[Line2D] = ()) -> None:
    """Put one legend for all panels below them."""
    known = looks(board)
    handles = [
        Line2D([], [], color=k.color, marker=k.marker, ls=k.dash, lw=k.width, ms=5, label=plain(board.short(x)))
        for x in labels
        for k in [known[x]]
    ]
    inches = [0.7 + 0.07 * len(str(handle.get_label())) for handle in (*handles, *extra)]
    width = canvas.get_figwidth()
    columns = len(inches) if sum(inches) <= width else max(1, int(width / max(inches)))
    canvas.legend(handles=[*handles, *extra], loc="outside lower center", ncols=columns, handlelength=2.6)


def plain(text: str) -> str:
    """Return a name that is drawn as it is written: matplotlib reads dollars as mathematics."""
    return text.replace("$", r"\$")


def reach(estimates: Sequence[Estimate], scale: float = 1.0) -> list[list[float]]:
    """Return the arms of error bars, below and above; without an interval they have no length."""
    arms: list[list[float]] = [[], []]
    for e in estimates:
        known = e.value is not None and e.low is not None and e.high is not None
        arms[0].append(scale * max(0.0, (e.value or 0.0) - (e.low or 0.0)) if known else 0.0)
        arms[1].append(scale * max(0.0, (e.high or 0.0) - (e.value or 0.0)) if known else 0.0)
    return arms


def line(axes: Axes, points: Sequence[tuple[float, Estimate]], look: Look, scale: float = 1.0) -> None:
    """Draw the valid estimates of one row as a line with error bars."""
    good = [(x, e) for x, e in points if e.value is not None and e.status == "ok"]
    if good:
        xs, found = [x for x, _ in good], [e for _, e in good]
        ys = [scale * (e.value or 0.0) for e in found]
        axes.plot(xs, ys, color=look.color, ls=look.dash, lw=look.width, marker=look.marker, ms=4, zorder=3)
        arms = reach(found, scale)
        axes.errorbar(xs, ys, yerr=arms, fmt="none", ecolor=look.color, elinewidth=0.9, alpha=0.55)
        doubted = [(x, y) for x, y, e in zip(xs, ys, found, strict=True) if e.doubt]
        if doubted:
            hollow = {"marker": look.marker, "mfc": "white", "mec": look.color}
            axes.plot(*zip(*doubted, strict=True), ls="none", ms=5, zorder=4, **hollow)


def finished(drawn: Drawing, name: str, title: str, caption: str, alt: str, data: list[dict[str, Any]]) -> Figure:
    """Return the figure, without dates or names of software in its files."""
    text, pixels = io.StringIO(), io.BytesIO()
    # The layout is solved once and kept for both files.
    engine = drawn.canvas.get_layout_engine()
    if engine is not None:
        engine.execute(drawn.canvas)
        drawn.canvas.set_layout_engine("none")
    vector: Any = FigureCanvasSVG(drawn.canvas)
    vector.print_svg(text, metadata={"Date": None, "Creator": None})
    raster: Any = FigureCanvasAgg(drawn.canvas)
    raster.print_png(pixels, metadata={"Software": None})
    return Figure(name, title, caption, alt, text.getvalue(), pixels.getvalue(), pd.DataFrame(data))


def datum(estimate: Estimate, **where: Any) -> dict[str, Any]:
    """Return one row of a figure's data."""
    return {
        **where,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "networks": estimate.n_seeds,
        "samples": estimate.n_samples,
        "status": "suspect" if estimate.doubt else estimate.status,
        "method": estimate.method,
        "reason": estimate.reason,
    }
