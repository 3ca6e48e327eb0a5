"""Which corruptions hurt which rows."""

from typing import Any

import pandas as pd
import seaborn as sns

from .board import Board
from .figure import Figure, datum, drawing, finished, plain, styled


def heatmap(board: Board) -> Figure:
    """Return mean accuracy by row and corruption, and the mean over all corruptions."""
    sweeps = board.family("corruption")
    measures = [board.mean(f"mean:{s.shift}", s.shift, [s]) for s in sweeps]
    heads = [s.shift for s in sweeps]
    if len(sweeps) > 1:
        measures.append(board.mean("mean:corruption", "corruptions, mean", sweeps))
        heads.append("mean of all")
    data: list[dict[str, Any]] = []
    grid = []
    for label in board.order:
        found = [board.estimate(label, measure) for measure in measures]
        data += [datum(e, row=label, corruption=head) for e, head in zip(found, heads, strict=True)]
        grid.append([None if e.value is None or e.status != "ok" else 100 * e.value for e in found])
    frame = pd.DataFrame(
        grid, index=[plain(x) for x in board.order], columns=[plain(x) for x in heads], dtype="float64"
    )
    name, title = "corruption", "Accuracy under each corruption, mean over levels"
    with styled(name):
        height = 1.5 + 0.42 * len(board.order)
        drawn = drawing(1, 1, min(9.2, 3.4 + 0.95 * len(heads)), height)
        axes = drawn.panels[0]
        bar = {"label": "accuracy (%)  higher is better \N{RIGHTWARDS ARROW}", "shrink": 1.0, "aspect": 14}
        small = 9 if len(heads) <= 10 else 7
        empty = frame.isna()
        shades = sns.light_palette("#0b4f7d", as_cmap=True)
        style = {"cmap": shades, "vmin": 10 * (frame.min().min() // 10), "vmax": 100, "linewidths": 1.5}
        sns.heatmap(frame, ax=axes, mask=empty, annot=True, fmt=".1f", annot_kws={"size": small}, cbar_kws=bar, **style)
        for y, x in zip(*empty.to_numpy().nonzero(), strict=True):
            axes.text(x + 0.5, y + 0.5, "-", ha="center", va="center")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.set(xlabel="", ylabel="")
        axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
        axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
        if len(heads) > len(sweeps):
            axes.axvline(len(sweeps), color="white", lw=6)
        caption = (
            f"{title} (%). Rows as on the board; a dash is a number that is missing or invalid, listed in the tables."
        )
        alt = f"Heat map of accuracy in percent: {len(board.order)} rows by {', '.join(heads)}."
        return finished(drawn, name, title, caption, alt, data)
