"""Intervals and tests against formulas and tables worked by hand."""

from math import comb, sqrt

import pandas as pd
import pytest

from attnbench.reports.difference import difference
from attnbench.reports.estimate import ONE, estimate
from attnbench.reports.interval import detectable, mcnemar, student, wilson
from attnbench.reports.measure import Measure, Reading
from attnbench.reports.run import Model

ACCURACY = Measure("accuracy", "accuracy", "accuracy", {("clean", "0"): 1.0}, share=True, better="higher")
COSINE = Measure("cosine", "cosine", "token_cosine", {("clean", "0"): 1.0}, layer=2)
Z = 1.959963985


def reading(scores: list[float], seed: int = 0, label: str = "a", fold: int = 0) -> Reading:
    series = pd.Series(scores, index=[f"s{i}" for i in range(len(scores))], dtype="float64")
    return Reading(Model(label, fold, seed), float(series.mean()), len(scores), None, series)


def valued(*values: float, label: str = "a") -> list[Reading]:
    return [Reading(Model(label, 0, seed), value, 100) for seed, value in enumerate(values)]


def test_wilson_is_the_published_formula() -> None:
    p, n = 0.8, 10
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert wilson(8, 10) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (11, 2.228)])
def test_student_uses_the_table_of_quantiles(n: int, quantile: float) -> None:
    low, high = student(1.0, 2.0, n)
    assert high - 1 == pytest.approx(quantile * 2 / sqrt(n), rel=5e-4)
    assert 1 - low == pytest.approx(high - 1)


@pytest.mark.parametrize(("gained", "lost"), [(1, 6), (0, 5), (3, 3)])
def test_mcnemar_is_a_sign_test(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))


def test_detectable_difference_matches_the_known_table() -> None:
    # Ten percent discordant pairs at 80 % power: 2.8, 1.25 and 0.89 points.
    sizes = {1000: 0.028, 5000: 0.0125, 10000: 0.0089}
    for n, expected in sizes.items():
        assert detectable(sqrt(0.1), n, models=False) == pytest.approx(expected, abs=1e-4)


def test_one_network_has_a_wilson_interval_that_speaks_of_itself() -> None:
    found = estimate([reading([1.0] * 8 + [0.0] * 2)], ACCURACY)
    assert (found.value, found.n_seeds, found.n_samples) == (0.8, 1, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert found.method == f"Wilson over samples; {ONE}"


def test_a_stochastic_network_has_an_interval_over_its_samples_means() -> None:
    found = estimate([reading([0.25, 0.75, 0.25, 0.75])], ACCURACY)
    # Deviation sqrt(4 * .0625 / 3), quantile of three degrees of freedom 3.182.
    half = 3.182 * sqrt(0.25 / 3) / 2
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
    assert found.method.startswith("Student t over the samples' means")


def test_equal_fractional_samples_do_not_look_certain() -> None:
    found = estimate([reading([0.5] * 10)], ACCURACY)
    assert (found.low, found.high) == pytest.approx(wilson(5, 10))


def test_several_networks_have_an_interval_over_networks() -> None:
    found = estimate(valued(0.5, 0.6, 0.7), ACCURACY)
    half = 4.303 * 0.1 / sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)
    assert found.method == "Student t over 3 networks (1 fold, 3 seeds)"


def test_an_interval_of_a_share_stays_within_its_range() -> None:
    found = estimate(valued(0.9, 0.99), ACCURACY)
    assert found.high == 1.0


def test_collapse_of_one_network_uses_the_recorded_deviation() -> None:
    found = estimate([Reading(Model("a", 0, 0), 0.5, 4, 0.2)], COSINE)
    assert found.high == pytest.approx(0.5 + 3.182 * 0.1, abs=1e-4)


def test_a_missing_network_is_named() -> None:
    gone = Reading(Model("a", 0, 9), None, status="null", reason="not run yet")
    found = estimate([*valued(0.5, 0.6), gone], ACCURACY)
    assert found.n_seeds == 2
    assert found.reason == "2 of 3 networks; the others: not run yet"


def test_two_networks_are_compared_sample_by_sample() -> None:
    ours, theirs = [1.0] * 6 + [0.0] + [1.0] * 3, [0.0] * 6 + [1.0] + [1.0] * 3
    found = difference([reading(ours)], [reading(theirs, label="b")], ACCURACY)
    assert found.value == pytest.approx(0.5)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)
    # Mean 5/10; squares sum to 7, so the variance is (7 - 10/4) / 9; quantile of nine degrees of freedom 2.262.
    half = 2.262 * sqrt((7 - 2.5) / 9) / sqrt(10)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-3)
    assert found.method.endswith("these two networks only")
    assert found.detectable == pytest.approx((Z + 0.8416) * sqrt(0.7 / 10), abs=1e-3)


def test_networks_that_never_differ_are_not_called_equal() -> None:
    found = difference([reading([1.0] * 10)], [reading([1.0] * 10)], ACCURACY)
    assert (found.low, found.high) == pytest.approx((-0.2775, 0.2775), abs=1e-4)
    assert not found.excludes_zero


def test_networks_are_paired_by_seed() -> None:
    found = difference(valued(0.5, 0.7, 0.6), valued(0.4, 0.5, 0.3, label="b"), ACCURACY)
    half = 4.303 * 0.1 / sqrt(3)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)
    assert found.n_pairs == 3


def test_invalid_networks_are_never_compared() -> None:
    bad = Reading(Model("b", 0, 0), 0.9, 10, status="invalid", reason="outside the ball")
    found = difference([reading([1.0, 0.0])], [bad], ACCURACY)
    assert (found.value, found.reason) == (None, "outside the ball")


def test_networks_that_agree_exactly_are_not_certain() -> None:
    found = estimate(valued(0.8, 0.8), ACCURACY)
    assert (found.low, found.high) == pytest.approx(wilson(80, 100))
    cost = Measure("flops", "flops", "flops", {("cost", ""): 1.0})
    assert estimate(valued(7.0, 7.0), cost).low is None


def test_pairs_that_differ_equally_prove_nothing() -> None:
    found = difference(valued(0.5, 0.7), valued(0.25, 0.45, label="b"), ACCURACY)
    assert found.value == pytest.approx(0.25)
    assert (found.p, found.low) == (None, None)
    assert not found.excludes_zero
