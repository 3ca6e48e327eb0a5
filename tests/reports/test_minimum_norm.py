"""Medians of smallest perturbations, worked by hand, and their intervals against the binomial law itself."""

from math import comb, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnbench.reports.board import Board, board
from attnbench.reports.minimum_norm import median, minimum_norms, sizes
from attnbench.reports.run import load

ABOUT = {"pgd": {"norm": "linf"}, "fgsm": {"norm": "linf", "minimum_norm": True}}
SHIFTS = {"clean": (("0",),), "pgd": (("0.1", "0.2"),), "fgsm": (("0.1", "0.2"),)}
NORMS = (0.0, 0.03, 0.05, 0.12, 0.5)
"""Smallest perturbations of five samples; the first is wrong without any, the last stands at both severities."""


def correct(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
    eps = 0.0 if shift == "clean" else float(severity)
    return [float(norm > eps) for norm in NORMS]


def measured(shift: str, severity: str) -> list[float]:
    return [min(norm, 0.0 if shift == "clean" else float(severity)) for norm in NORMS]


def made(plan: Any, root: Path, **settings: Any) -> Board:
    wanted = {"shifts": SHIFTS, "about": ABOUT, "costs": False, "correct": correct, "sizes": measured, **settings}
    plan(**wanted).write(root)
    return board(load(root))


def line(read: Board, shift: str) -> dict[str, str]:
    table = minimum_norms(read)
    row = next(row for row in table.rows if (row[1].text, row[2].text) == (shift, "softmax"))
    return {column.name: entry.text for column, entry in zip(table.columns, row, strict=True)} | {
        "interval": row[3].interval
    }


@pytest.mark.parametrize("n", [*range(1, 31), 100])
def test_the_interval_is_that_of_the_binomial_law(n: int) -> None:
    def below(k: int) -> float:
        return sum(comb(n, i) for i in range(k)) / 2**n

    # The k-th smallest and k-th largest of n: the largest k whose two tails hold no more than 5 % together.
    k = max((k for k in range(1, n // 2 + 1) if below(k) <= 0.025), default=0)
    found = median([float(x) for x in range(1, n + 1)])
    assert found.value == (n + 1) / 2
    assert (found.low, found.high) == ((k, n + 1 - k) if k else (1, n))
    assert found.coverage == (0.95 if k else pytest.approx(1 - 2 / 2**n))


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="at least one"):
        median([])


def test_an_attack_that_looks_for_the_smallest_says_it_exactly(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    sweep = next(sweep for sweep in read.sweeps if sweep.shift == "fgsm")
    found = sizes(read.evidence, read.run.models("softmax")[0], sweep, [("clean", "0")])
    assert found is not None
    np.testing.assert_allclose(found.most, [0, 0.03, 0.05, 0.12, inf])
    np.testing.assert_allclose(found.least, [0, 0.03, 0.05, 0.12, 0.2])
    text = line(read, "fgsm")
    assert (text["median"], text["censored"], text["clean_errors"]) == ("0.05", "20.0", "20.0")
    # Five values reach 1 - 2/32.
    assert text["interval"] == "[0, > 0.2]"
    assert "covers 93.8 %" in text["method"]


def test_a_ladder_says_between_which_severities_it_lies(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    sweep = next(sweep for sweep in read.sweeps if sweep.shift == "pgd")
    found = sizes(read.evidence, read.run.models("softmax")[0], sweep, [("clean", "0")])
    assert found is not None
    np.testing.assert_allclose(found.least, [0, 0, 0, 0.1, 0.2])
    np.testing.assert_allclose(found.most, [0, 0.1, 0.1, 0.2, inf])
    assert line(read, "pgd")["median"] == "0 to 0.1"


def test_a_network_that_draws_noise_has_no_exact_size(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, facts=lambda cell: {"deterministic": False, "passes": 50})
    sweep = next(sweep for sweep in read.sweeps if sweep.shift == "fgsm")
    found = sizes(read.evidence, read.run.models("softmax")[0], sweep, [("clean", "0")])
    assert found is not None
    np.testing.assert_allclose(found.least, [0, 0, 0, 0.1, 0.2])
    np.testing.assert_allclose(found.most, [0, 0.1, 0.1, 0.2, inf])
    assert line(read, "fgsm")["median"] == "0 to 0.1"


def test_a_worst_case_takes_the_smallest_of_its_attacks(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path)
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    found = sizes(read.evidence, read.run.models("softmax")[0], sweep, [("clean", "0")])
    assert found is not None
    np.testing.assert_allclose(found.least, [0, 0, 0, 0.1, 0.2])
    np.testing.assert_allclose(found.most, [0, 0.03, 0.05, 0.12, inf])
    assert line(read, "worst case (linf)")["median"] == "0 to 0.05"


def test_a_worst_case_is_not_known_while_an_attack_is_missing(plan: Any, tmp_path: Path) -> None:
    plan(shifts=SHIFTS, about=ABOUT, costs=False, correct=correct).write(tmp_path, lambda c: c["shift"] != "fgsm")
    text = line(board(load(tmp_path)), "worst case (linf)")
    assert text["median"] == "-"


def test_an_attack_that_was_not_planned_for_a_row_is_left_out(plan: Any, tmp_path: Path) -> None:
    whole = plan(shifts=SHIFTS, about=ABOUT, costs=False, correct=correct, sizes=measured)
    store = whole.write(tmp_path)
    document = whole.run()
    document["cells"] = [c for c in document["cells"] if (c["label"], c["shift"]) != ("softmax", "fgsm")]
    store.publish_run(document)
    assert line(board(load(tmp_path)), "worst case (linf)")["median"] == "0 to 0.1"


def test_without_stored_sizes_a_smallest_perturbation_is_read_off_the_severities(plan: Any, tmp_path: Path) -> None:
    assert line(made(plan, tmp_path, sizes=None), "fgsm")["median"] == "0 to 0.1"


def test_more_than_half_standing_is_more_than_the_largest_severity(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, correct=lambda *where: (1, 1, 1, 0, 1), sizes=None)
    assert line(read, "pgd")["median"] == "> 0.2"
    row = next(row for row in minimum_norms(read).rows if row[1].text == "pgd")
    assert (row[3].value, row[3].high) == ("> 0.2", None)


def test_several_networks_give_the_median_of_theirs(plan: Any, tmp_path: Path) -> None:
    # Medians of 0.05 in three networks.
    text = line(made(plan, tmp_path, seeds=(0, 1, 2)), "fgsm")
    assert (text["median"], text["interval"], text["samples"]) == ("0.05", "[0.05, 0.05]", "15")
    assert text["method"] == "order statistics of the medians of 3 networks, covers 75 %"


def test_a_row_without_outcomes_says_why(plan: Any, tmp_path: Path) -> None:
    plan(shifts=SHIFTS, about=ABOUT, costs=False, correct=correct).write(tmp_path, lambda c: c["label"] != "l2")
    row = next(row for row in minimum_norms(board(load(tmp_path))).rows if row[2].text == "l2")
    assert (row[3].text, row[3].note) == ("-", "not run yet (3 of 3 parts)")


def test_words_have_no_size(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, shifts={"pgd": (("soft", "hard"),)}, correct=lambda *where: (1, 0), sizes=None)
    assert minimum_norms(read).rows == ()
