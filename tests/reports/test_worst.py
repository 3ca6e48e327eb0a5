"""The worst case over the attacks of a ball, worked by hand: what it counts, what it refuses, and where it sorts."""

from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.board import Board, board
from attnbench.reports.chapter import tables
from attnbench.reports.fooled import Count, Tally, count, fooled
from attnbench.reports.page import page
from attnbench.reports.ranking import ranking
from attnbench.reports.run import load
from attnbench.reports.verdict import verdict

LINF = {"norm": "linf", "knowledge": "white_box", "convention": "", "minimum_norm": False}
SHIFTS = {"clean": (("0",),), "pgd": (("0.1", "0.2"),), "fgsm": (("1/10",),)}
ABOUT = {"pgd": LINF, "fgsm": LINF}
RIGHT = {
    ("clean", "0"): (1, 1, 1, 1, 1, 0),
    ("pgd", "0.1"): (1, 1, 1, 1, 0, 1),
    ("pgd", "0.2"): (1, 1, 0, 1, 1, 0),
    ("fgsm", "1/10"): (1, 0, 1, 1, 1, 1),
}
"""At 0.1 pgd breaks the fifth sample and fgsm the second; the last is wrong already; at 0.2 pgd breaks the third."""


def correct(label: str, fold: int, seed: int, shift: str, severity: str) -> tuple[int, ...]:
    return RIGHT[shift, severity]


def made(plan: Any, root: Path, keep: Any = lambda cell: True, **settings: Any) -> Board:
    wanted = {"shifts": SHIFTS, "about": ABOUT, "costs": False, "correct": correct, **settings}
    plan(**wanted).write(root, keep)
    return board(load(root))


def number(read: Board, severity: str, label: str = "softmax", shift: str = "worst case (linf)") -> float | None:
    sweep = next(sweep for sweep in read.sweeps if sweep.shift == shift)
    return read.estimate(label, read.at(sweep, severity)).value


def test_a_sample_counts_only_where_every_attack_leaves_it(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    assert number(read, "0.1") == pytest.approx(3 / 6)
    # What broke at 0.1, or without an attack, is broken at 0.2 too.
    assert number(read, "0.2") == pytest.approx(2 / 6)
    criterion = read.criterion
    assert criterion is not None
    assert criterion.heading == "worst case (linf), area to 0.2"
    assert read.estimate("softmax", criterion).value == pytest.approx((5 / 6 + 2 * 3 / 6 + 2 / 6) / 4)


def test_a_stochastic_network_keeps_its_smallest_share_and_nothing_is_carried(plan: Any, tmp_path: Path) -> None:
    shares = {"pgd": {"0.1": (1.0, 0.5, 0.25), "0.2": (1.0, 1.0, 1.0)}, "fgsm": {"1/10": (0.75, 1.0, 0.5)}}
    read = made(
        plan,
        tmp_path,
        correct=lambda label, fold, seed, shift, severity: shares.get(shift, {}).get(severity, (0.0, 1.0, 1.0)),
        facts=lambda cell: {"deterministic": False, "passes": 50},
    )
    assert number(read, "0.1") == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert number(read, "0.2") == 1.0


def test_what_each_attack_breaks_alone(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    found = count(read.evidence, read.run.models("softmax"), sweep, "0.1", [("clean", "0")])
    assert found == Count({"pgd": Tally(1, 1), "fgsm": Tally(1, 1)}, together=2, samples=6, networks=1)
    found = count(read.evidence, read.run.models("softmax"), sweep, "0.2", [("clean", "0")])
    # At 0.2 only pgd was run; the second sample fell to fgsm at 0.1 and is still fallen.
    assert found.by_attack == {"pgd": Tally(2, 2)}
    assert found.together == 3
    lines = [[entry.text for entry in row] for row in fooled(read).rows if row[2].text == "softmax"]
    # The only severity that both attacks have is 0.1.
    assert [(line[1], line[3], line[6], line[7]) for line in lines] == [
        ("0.1", "pgd", "1", "1"),
        ("0.1", "fgsm", "1", "1"),
        ("0.1", "all 2 attacks", "2", "-"),
    ]


def test_a_missing_attack_makes_it_null_with_the_reason(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, keep=lambda cell: (cell["label"], cell["shift"]) != ("l2", "fgsm"))
    assert number(read, "0.1", "l2") is None
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    assert read.estimate("l2", read.at(sweep, "0.1")).reason == "fgsm: not run yet"
    assert number(read, "0.1", "softmax") == pytest.approx(3 / 6)
    assert read.order[-1] == "l2"
    assert not tables(read).doubts.rows


def test_an_attack_that_makes_no_sense_on_a_row_is_left_out_and_named(plan: Any, tmp_path: Path) -> None:
    whole = plan(shifts=SHIFTS, about=ABOUT, costs=False, correct=correct)
    store = whole.write(tmp_path)
    document = whole.run()
    document["cells"] = [c for c in document["cells"] if (c["label"], c["shift"]) != ("l2", "fgsm")]
    document["not_applicable"] = [{"label": "fgsm on l2", "reason": "it has no gradient"}]
    store.publish_run(document)
    read = board(load(tmp_path))
    assert number(read, "0.1", "l2") == pytest.approx(4 / 6)
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    reason = read.estimate("l2", read.at(sweep, "0.1")).reason
    assert reason == "without fgsm: not applicable: it has no gradient"
    assert "it has no gradient" in page(read, tables(read), {})


def test_an_invalid_attack_makes_it_invalid(plan: Any, tmp_path: Path) -> None:
    whole = plan(shifts=SHIFTS, about=ABOUT, costs=False, correct=correct)
    store = whole.write(tmp_path)
    cell = next(c for c in whole.cells() if (c["label"], c["shift"]) == ("l2", "fgsm"))
    document, table = whole.document(cell)
    for record in document["records"]:
        record |= {"status": "invalid", "reason": "left the ball"}
    store.publish_cell(cell["key"], document, table)
    read = board(load(tmp_path))
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    found = read.estimate("l2", read.at(sweep, "0.2"))
    assert (found.status, found.reason) == ("invalid", "fgsm: left the ball")
    assert read.order[-1] == "l2"


@pytest.mark.parametrize(
    ("about", "declared", "names"),
    [
        ({"pgd": LINF, "fgsm": {**LINF, "norm": "l2"}}, {}, []),
        ({"pgd": {"norm": "none"}, "fgsm": {"norm": "none"}}, {}, []),
        ({"pgd": LINF, "fgsm": {**LINF, "convention": "a paper"}}, {}, []),
        ({}, {}, []),
        ({"pgd": {**LINF, "norm": "patches"}, "fgsm": {**LINF, "norm": "patches"}}, {}, ["worst case (patches)"]),
        (
            {"pgd": {**LINF, "norm": "patches"}, "fgsm": {**LINF, "norm": "patches"}},
            {"pgd": {"settings": {"patch": 2}}, "fgsm": {"settings": {"patch": 4}}},
            [],
        ),
    ],
    ids=["two balls", "no ball", "a convention", "an older run", "patches", "patches of two sizes"],
)
def test_only_attacks_of_one_ball_are_taken_together(
    plan: Any, tmp_path: Path, about: Any, declared: Any, names: list[str]
) -> None:
    read = made(plan, tmp_path, about=about, declared=declared)
    assert [sweep.shift for sweep in read.sweeps if sweep.members] == names


def test_words_name_every_attack_and_where_it_is_missing(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    table = ranking(read)
    assert "a sample is right only if right under pgd, fgsm (at 1/10 only)" in table.caption
    assert [column.name for column in table.columns[2:5]] == [
        "area:worst case (linf)",
        "accuracy:clean:0",
        "accuracy:worst case (linf):0.2",
    ]
    assert "Highest worst case (linf), area to 0.2" in verdict(read).sentences[0]


def test_collapse_under_attack_is_that_of_an_attack_that_was_run(plan: Any, tmp_path: Path) -> None:
    found = tables(made(plan, tmp_path)).collapse
    assert {row[1].text for row in found.rows} == {"clean", "pgd at 0.2"}


def test_known_defects_stand_beside_the_shift_and_names_are_whole(plan: Any, tmp_path: Path) -> None:
    name = "torchattacks:AutoAttack"
    read = made(
        plan,
        tmp_path,
        shifts={"clean": (("0",),), "pgd": (("0.1", "0.2"),), name: (("0.1",),)},
        about={"pgd": LINF, name: {**LINF, "family": "adversarial"}},
        declared={name: {"warning": "Runs 10 steps <b>only</b>."}},
        correct=lambda label, fold, seed, shift, severity: (1, 1, 0),
    )
    (table,) = tables(read).attacks
    notes = {row[0].text: row[0].note for row in table.rows}
    assert notes[name] == f"known defect of {name}: Runs 10 steps <b>only</b>."
    assert notes["pgd"] == ""
    text = page(read, tables(read), {})
    assert "Runs 10 steps &lt;b&gt;only&lt;/b&gt;." in text
    assert text.count("AutoAttack") == text.count(name)
