"""Rows of several ways of training are ranked apart and set side by side; conventions stand on their own."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.board import Board, board
from attnbench.reports.chapter import tables
from attnbench.reports.convention import conventions
from attnbench.reports.page import page
from attnbench.reports.report import write
from attnbench.reports.run import load
from attnbench.reports.track import comparison, tracks
from attnbench.reports.trust_sheet import trust_sentence
from attnbench.reports.verdict import verdict

from .conftest import key

LINF = {"norm": "linf", "knowledge": "white_box"}
SHIFTS = {"clean": (("0",),), "pgd": (("0.1", "0.2"),)}
FIRST = ("softmax", "softmax (A/A)", "l2")
LABELS = (*FIRST, *(f"{label} [fgsm_rs]" for label in FIRST))
RIGHT = {
    "softmax": (9, 4),
    "softmax (A/A)": (9, 4),
    "l2": (8, 2),
    "softmax [fgsm_rs]": (7, 6),
    "softmax (A/A) [fgsm_rs]": (7, 6),
    "l2 [fgsm_rs]": (8, 7),
}
"""Of ten samples, how many are right clean and at 0.1; at 0.2 one fewer."""


def correct(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
    clean, attacked = RIGHT[label]
    right = {"0": clean, "0.1": attacked, "0.2": attacked - 1}.get(severity, clean)
    return [1.0] * right + [0.0] * (10 - right)


def made(plan: Any, root: Path, **settings: Any) -> Board:
    shifts = {"clean": (("0",),), "pgd": (("0.1", "0.2"),), "fgsm": (("0.1", "0.2"),), "blur": (("1",),)}
    wanted = {"labels": LABELS, "tracks": ("standard", "fgsm_rs"), "shifts": shifts, "correct": correct}
    plan(**{**wanted, "about": {"pgd": LINF, "fgsm": LINF}, **settings}).write(root)
    return board(load(root))


def test_the_main_board_holds_the_first_track_alone(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    found = tables(read)
    assert [row[0].value for row in found.ranking.rows] == list(FIRST)
    assert {row[0].value for row in found.differences.rows} == {"softmax (A/A)", "l2"}
    assert not any("fgsm_rs]" in sentence for sentence in (verdict(read).headline, *verdict(read).sentences))
    assert "Rows trained with fgsm_rs are ranked apart, each track in a chapter of its own." in verdict(read).sentences


def test_a_track_has_a_board_of_its_own(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    (other,) = read.others
    assert (other.baseline, other.twins) == ("softmax [fgsm_rs]", ["softmax (A/A) [fgsm_rs]"])
    (track,) = tracks(read)
    assert [(row[0].text, row[0].value, row[0].chip) for row in track.ranking.rows] == [
        ("l2", "l2 [fgsm_rs]", ""),
        ("softmax", "softmax [fgsm_rs]", "baseline"),
        ("softmax (A/A)", "softmax (A/A) [fgsm_rs]", "A/A"),
    ]
    assert track.verdict.headline.startswith("No method may be called better or worse")
    assert any(line.startswith("l2 minus softmax, worst case (linf), area to 0.2") for line in track.verdict.sentences)
    assert track.verdict.noise[0].startswith("The same mechanism trained again: softmax (A/A) minus softmax is 0.0")
    names = {table.name for table in track.folded}
    assert {"track-2-differences", "track-2-attacks", "track-2-corruptions", "track-2-collapse"} <= names


def test_all_rows_are_those_of_the_track(plan: Any, tmp_path: Path) -> None:
    def last(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
        return [0.0] * 10 if severity == "0.2" else correct(label, fold, seed, shift, severity)

    whole = plan(labels=LABELS, tracks=("standard", "fgsm_rs"), shifts=SHIFTS, correct=last, about={"pgd": LINF})
    store = whole.write(tmp_path)
    document = whole.run()
    for label in LABELS:
        name = {"label": label, "fold": 0, "training_seed": 0, "shift": "trust(norm=linf)", "family": "trust"}
        cell = {**name, "key": key(label, "trust"), "severities": ["0.1"], "norm": "linf", "unit": ""}
        document["cells"].append(cell)
        content, table = whole.document(cell)
        content["facts"] = {"trust": {"measured": {"zero_gradient": {"count": 0, "n": 60}}, "n": 64, "right": 60}}
        store.publish_cell(cell["key"], content, table)
    store.publish_run(document)
    read = board(load(tmp_path))
    for each in (read, *read.others):
        assert trust_sentence(each).endswith("Trusted: all rows of this track (L-inf).")


def test_training_is_compared_row_by_row(plan: Any, tmp_path: Path) -> None:
    table = comparison(made(plan, tmp_path))
    names = [column.name for column in table.columns]
    rows = {(row[0].value, row[1].text): dict(zip(names, row, strict=True)) for row in table.rows}
    assert len(rows) == 6
    area = "area:worst case (linf)"
    assert rows["l2", "standard"][area].value == pytest.approx((0.8 + 2 * 0.2 + 0.1) / 4)
    assert rows["l2", "fgsm_rs"][area].value == pytest.approx((0.8 + 2 * 0.7 + 0.6) / 4)
    assert rows["l2", "fgsm_rs"][f"{area} minus first"].value == pytest.approx((2 * 0.5 + 0.5) / 4)
    assert rows["l2", "standard"][f"{area} minus first"].text == ""
    assert rows["softmax", "fgsm_rs"]["accuracy:clean:0 minus first"].value == pytest.approx(-0.2)
    assert rows["softmax", "fgsm_rs"]["accuracy:worst case (linf):0.2"].value == pytest.approx(0.5)


def test_the_page_has_a_chapter_a_track_and_files_keep_whole_names(plan: Any, tmp_path: Path) -> None:
    labels = ("softmax", "softmax [fgsm_rs]")
    made(plan, tmp_path, labels=labels, shifts=SHIFTS, costs=False)
    text = write(tmp_path).read_text()
    assert 'id="track-2"' in text
    assert "Trained with fgsm_rs" in text
    assert 'id="figure-track-2-attack"' in text
    assert (tmp_path / "report/figures/track-2-attack.svg").exists()
    lines = csv.DictReader(io.StringIO((tmp_path / "report/tables/track-2-ranking.csv").read_text()))
    assert {line["row"] for line in lines} == set(labels[1:])


def test_recipes_are_defined(plan: Any, tmp_path: Path) -> None:
    whole = plan(labels=LABELS, tracks=("standard", "fgsm_rs"), correct=correct, shifts={"clean": (("0",),)})
    store = whole.write(tmp_path)
    document = whole.run()
    document["declarations"]["recipes"] = {"fgsm_rs": {"name": "fgsm_rs", "summary": "One <step>."}}
    store.publish_run(document)
    read = board(load(tmp_path))
    assert "One &lt;step&gt;." in page(read, tables(read), {})


def test_a_run_of_one_track_has_none(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, labels=FIRST, tracks=())
    assert (read.run.tracks, read.others, tracks(read)) == ([""], [], ())
    assert comparison(read).rows == ()
    assert 'id="tracks"' not in page(read, tables(read), {})


PAPER = {"family": "adversarial", "norm": "linf", "knowledge": "white_box", "convention": "A & B <2023>"}


def convention_run(plan: Any, root: Path, ladder: tuple[str, ...] = ("0.02", "0.05"), **settings: Any) -> Board:
    """A convention whose 1/255 and 40/255 are a third of that in pixels."""

    def facts(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["shift"] != "paper":
            return {}
        ends = {"lowest_pixel": -0.01, "highest_pixel": 1.01, "note": "labels are the model's own"}
        eps = {"1/255": 1 / 765, "40/255": 40 / 765}
        return {
            "severities": [
                {"severity": s, "pixel_eps": x, "largest_perturbation": x - 0.0001 * cell["fold"], **ends}
                for s, x in eps.items()
            ]
        }

    shifts = {
        "clean": (("0",),),
        "pgd": (ladder,),
        "fgsm": (ladder,),
        "paper": (("1/255", "40/255"),),
    }
    return made(
        plan,
        root,
        labels=FIRST,
        tracks=(),
        folds=(0, 1),
        shifts=shifts,
        about={"pgd": LINF, "fgsm": LINF, "paper": PAPER},
        declared={"paper": {"settings": {"attack": "fgsm"}, "warning": "not a standard number"}},
        **{"facts": facts, **settings},
    )


def standards(read: Board) -> dict[str, tuple[str, str]]:
    """Return the nearest standard number of one row by severity, and why there is none."""
    return {
        row[3].text: (row[9].text, row[10].note if row[9].text == "-" else "")
        for row in conventions(read).rows
        if row[2].text == "l2"
    }


def test_no_standard_number_is_that_of_no_attack(plan: Any, tmp_path: Path) -> None:
    found = standards(convention_run(plan, tmp_path, ladder=("0", "0.01")))
    assert found == {
        "1/255": ("fgsm at 0.01, 7.7 times as large", ""),
        "40/255": ("fgsm at 0.01, 5.2 times as small", ""),
    }


def test_a_convention_without_a_strength_says_why(plan: Any, tmp_path: Path) -> None:
    read = convention_run(plan, tmp_path, facts=lambda cell: {})
    assert set(standards(read).values()) == {("-", "eps not stated")}
    for cell in read.run.planned:
        if cell["shift"] == "paper":
            (tmp_path / "cells" / f"{cell['key']}.json").unlink()
    assert set(standards(board(load(tmp_path))).values()) == {("-", "not run yet")}


def test_a_convention_is_marked_and_set_beside_the_standard(plan: Any, tmp_path: Path) -> None:
    read = convention_run(plan, tmp_path)
    table = conventions(read)
    names = [column.name for column in table.columns]
    rows = {(row[2].text, row[3].text): dict(zip(names, row, strict=True)) for row in table.rows}
    assert len(rows) == 6
    found = rows["l2", "40/255"]
    assert found["shift"].chip == "non-standard"
    assert found["shift"].note == "known defect of paper: not a standard number; labels are the model's own"
    assert found["pixel_eps"].value == pytest.approx(40 / 765)
    assert found["largest"].value == pytest.approx(40 / 765)
    assert (found["lowest_pixel"].value, found["highest_pixel"].value) == (-0.01, 1.01)
    assert found["nearest_standard"].text == "fgsm at 0.05"
    # 0.02 against 1/765, and 0.05 against 40/765: the one is 15.3 times as large, the others are alike.
    assert rows["l2", "1/255"]["nearest_standard"].text == "fgsm at 0.02, 15 times as large"
    text = page(read, tables(read), {})
    assert "A &amp; B &lt;2023&gt;" in text
    assert '<span class="chip non-standard">non-standard</span>' in text


def test_a_convention_enters_no_worst_case_and_no_ranking(plan: Any, tmp_path: Path) -> None:
    read = convention_run(plan, tmp_path)
    (worst,) = [sweep for sweep in read.sweeps if sweep.members]
    assert [member.shift for member in worst.members] == ["pgd", "fgsm"]
    found = tables(read)
    others = [table for table in found.all() if table.name not in {"conventions", "trust"}]
    assert not any("paper" in entry.text for table in others for row in table.rows for entry in row)
    assert "paper" not in {sweep.shift for sweep in read.family("adversarial")}
