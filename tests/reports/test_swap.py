"""A mechanism swap is a 2 x 2 table whose numbers are those of the cells, with a control where there is one."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.board import board
from attnbench.reports.chapter import tables
from attnbench.reports.page import page
from attnbench.reports.run import load
from attnbench.reports.swap import pairs, swaps

CORRECT = {
    "softmax": 8,
    "l2": 7,
    "softmax with l2": 3,
    "l2 with softmax": 2,
    "softmax as far as l2": 5,
    "l2 as far as softmax": 6,
}
"""Correct answers of ten, of seed 0; those of seed 1 are one fewer."""


def swapped_run(plan: Any, root: Path, control: bool = True) -> None:
    made = plan(
        labels=("softmax", "l2"),
        seeds=(0, 1),
        shifts={"clean": (("0",),)},
        correct=lambda label, fold, seed, shift, severity: (
            [1.0] * (CORRECT[label] - seed) + [0.0] * (10 - CORRECT[label] + seed)
        ),
    )
    store = made.write(root)
    swaps_ = []
    for own, other in (("softmax", "l2"), ("l2", "softmax")):
        for seed in (0, 1):
            for as_far in (False, True) if control else (False,):
                label = f"{own} {'as far as' if as_far else 'with'} {other}"
                key = hashlib.sha256(f"{label} {seed}".encode()).hexdigest()
                cell = next(c for c in made.cells() if (c["label"], c["training_seed"]) == (own, seed))
                document, table = made.document({**cell, "key": key, "label": label})
                store.publish_cell(key, document, table)
                swaps_.append({**cell, "key": key, "swap": other, "control": as_far})
    store.publish_run({**made.run(), "swaps": swaps_})


def numbers(root: Path) -> dict[tuple[str, str], float | str | None]:
    (table,) = swaps(load(root))
    names = [column.name for column in table.columns]
    return {
        (row[0].text, name): entry.value if entry.value is not None else entry.text
        for row in table.rows
        for name, entry in zip(names, row, strict=True)
    }


def test_rows_say_whose_weights_and_columns_whose_attention(plan: Any, tmp_path: Path) -> None:
    swapped_run(plan, tmp_path)
    assert pairs(load(tmp_path)) == [("softmax", "l2")]
    found = numbers(tmp_path)
    expected = {
        ("softmax", "first"): 0.75,
        ("softmax", "second"): 0.25,
        ("softmax", "control"): 0.45,
        ("softmax", "swap_minus_own"): -0.5,
        ("softmax", "swap_minus_control"): -0.2,
        ("l2", "first"): 0.15,
        ("l2", "second"): 0.65,
        ("l2", "control"): 0.55,
        ("l2", "swap_minus_own"): -0.5,
        ("l2", "swap_minus_control"): -0.4,
    }
    assert {place: found[place] for place in expected} == pytest.approx(expected)


def test_without_a_control_the_table_says_why(plan: Any, tmp_path: Path) -> None:
    swapped_run(plan, tmp_path, control=False)
    (table,) = swaps(load(tmp_path))
    assert {row[4].text for row in table.rows} == {"-"}
    assert any("no logits to compare" in note for note in table.notes)


def test_a_missing_swap_is_a_reason_and_no_number(plan: Any, tmp_path: Path) -> None:
    swapped_run(plan, tmp_path)
    run = load(tmp_path)
    gone = next(c["key"] for c in run.swaps if c["label"] == "l2" and not c["control"])
    (tmp_path / "cells" / f"{gone}.json").unlink()
    (table,) = swaps(load(tmp_path))
    assert any("1 of 2 networks" in note for note in table.notes)


def test_the_page_shows_the_swap_and_the_board_does_not_count_it(plan: Any, tmp_path: Path) -> None:
    swapped_run(plan, tmp_path)
    read = board(load(tmp_path))
    assert read.labels == ["softmax", "l2"]
    assert read.run.strangers == 0
    html = page(read, tables(read), {})
    assert 'id="swaps"' in html
    assert "evaluated with l2" in html


def test_a_run_without_swaps_has_no_such_part(plan: Any, tmp_path: Path) -> None:
    plan().write(tmp_path)
    read = board(load(tmp_path))
    assert swaps(read.run) == ()
    assert 'id="swaps"' not in page(read, tables(read), {})
