"""The labels of a figure's panels: one unit each, and none reaches into its neighbour."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attnbench.reports import curve
from attnbench.reports.board import board
from attnbench.reports.figure import Drawing, finished
from attnbench.reports.run import load

UNIT = "eps (L2, share of the centred stream)"
TOKENS = {"family": "adversarial", "norm": "tokens", "unit": UNIT, "convention": ""}
NAMES = tuple(f"tokens{number}" for number in range(10))


@pytest.mark.parametrize("number", [3, 10])
def test_axis_labels_do_not_overlap(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    names = NAMES[:number]
    about = dict.fromkeys(names, TOKENS)
    plan(labels=("softmax",), shifts=dict.fromkeys(names, (("0.1", "0.4"),)), about=about).write(tmp_path)
    read = board(load(tmp_path))
    drawings: list[Drawing] = []
    monkeypatch.setattr(curve, "finished", lambda drawn, *words: drawings.append(drawn) or finished(drawn, *words))
    curve.curve(read, "attack", [s for s in read.sweeps if s.shift in names], "title")
    canvas, panels = drawings[0]
    canvas.draw_without_rendering()
    boxes = [panel.xaxis.label.get_window_extent() for panel in panels[: min(number, 5)]]
    assert all(panel.get_xlabel().replace("\n", " ") == UNIT for panel in panels)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize(
    ("norm", "unit"), [("patches", "patches"), ("linf", "eps (pixels)"), ("", "patches, or eps (pixels)")]
)
def test_a_panel_says_the_unit_of_its_ball(plan: Any, tmp_path: Path, norm: str, unit: str) -> None:
    about = {"pgd": {"norm": norm, "unit": "patches, or eps (pixels)"}}
    plan(labels=("softmax",), shifts={"pgd": (("1",),)}, about=about).write(tmp_path)
    assert [sweep.unit for sweep in board(load(tmp_path)).sweeps] == [unit]
