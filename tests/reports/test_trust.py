"""Verdicts from counts worked by hand: powers of one half, binomial tails summed term by term, small outcome tables."""

from math import comb
from typing import Any

import numpy as np
import pytest

from attnbench.reports.gate import Gate, Terms, counted, most_by_chance, paired
from attnbench.reports.trust import (
    black_box_cell_stronger,
    curve_ends_early,
    eps_zero_differs,
    gates,
    single_step_cell_stronger,
    verdict,
)


def tail(count: int, n: int, share: float) -> float:
    """Return the chance of at least a count."""
    return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))


@pytest.mark.parametrize("n", [1, 8, 37, 128, 500])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("level", [0.05, 0.01, 0.005])
def test_the_bound_is_the_binomial_tail(n: int, share: float, level: float) -> None:
    allowed = most_by_chance(n, share, level)
    assert tail(allowed + 1, n, share) <= level
    assert allowed == 0 or tail(allowed, n, share) > level


def judged(**measured: Any) -> dict[str, Gate]:
    return {gate.name: gate for gate in gates({"measured": measured})}


def count(k: int, n: int = 128) -> dict[str, int]:
    return {"count": k, "n": n}


def pair(weaker: int, stronger: int) -> dict[str, int]:
    return {"weaker_only": weaker, "stronger_only": stronger, "n": 128}


def test_five_of_128_are_not_chance_and_four_are() -> None:
    """At one in a hundred: P(X >= 5) is .0096, P(X >= 4) is .040; at one half 78 of 128 are most."""
    found = judged(silent_success=count(4))["silent_success"]
    assert (found.verdict, found.value, found.n, found.threshold) == ("ok", 4 / 128, 128, 5 / 128)
    assert judged(silent_success=count(5))["silent_success"].verdict == "suspect"
    most = next(k for k in range(128) if tail(k, 128, 0.5) <= 0.01)
    for k, word in ((most - 1, "suspect"), (most, "broken")):
        assert judged(unbounded_attack_fails=count(k))["unbounded_attack_fails"].verdict == word
        assert judged(restarts_matter=count(k))["restarts_matter"].verdict == "suspect"


def test_seven_to_nothing_are_not_chance_and_six_are() -> None:
    """2^-7 = .0078 and 2^-6 = .0156; with 9 to 1, 11 / 1024 is just too much, with 10 to 1, 12 / 2048 is not."""
    for weaker, stronger, word in ((6, 0, "ok"), (7, 0, "suspect"), (9, 1, "ok"), (10, 1, "suspect"), (0, 60, "ok")):
        assert judged(single_step_stronger=pair(weaker, stronger))["single_step_stronger"].verdict == word
    six = judged(single_step_stronger=pair(6, 0))["single_step_stronger"]
    assert (six.value, six.n, six.threshold) == (1.0, 6, None)


def test_twice_the_steps_are_judged_both_ways_at_half_of_the_level() -> None:
    """2^-7 = .0078 is above .005 and 2^-8 = .0039 below."""
    more, fewer, seven = (judged(steps_matter=pair(*p))["steps_matter"] for p in ((0, 8), (8, 0), (0, 7)))
    assert (more.verdict, fewer.verdict, seven.verdict) == ("suspect", "suspect", "ok")
    assert "fool more" in more.reason
    assert "fool fewer" in fewer.reason


def test_each_two_neighbouring_eps_have_their_share_of_the_level() -> None:
    """Of three pairs each has .0033: 2^-8 = .0039 is above it, 2^-9 below; the worst pair is shown."""
    pairs = [
        {"smaller": i / 10, "larger": (i + 1) / 10, **pair(b, c)} for i, (b, c) in enumerate(((1, 0), (9, 0), (0, 9)))
    ]
    found = judged(larger_eps_weaker={"pairs": pairs, "n": 128})["larger_eps_weaker"]
    assert (found.verdict, found.n) == ("suspect", 9)
    assert "eps 0.1 fools what 0.2 does not" in found.reason
    pairs[1].update(pair(8, 0))
    assert judged(larger_eps_weaker={"pairs": pairs, "n": 128})["larger_eps_weaker"].verdict == "ok"


@pytest.mark.parametrize(
    ("black", "noise", "zero", "word"),
    [(0, 0, 128, "suspect"), (20, 0, 128, "broken"), (0, 5, 128, "broken"), (20, 20, 9, "suspect"), (20, 20, 4, "ok")],
)
def test_no_gradient_is_broken_where_others_succeed(black: int, noise: int, zero: int, word: str) -> None:
    found = judged(zero_gradient=count(zero), black_box_stronger=count(black), noise_stronger=count(noise))
    assert found["zero_gradient"].verdict == word


@pytest.mark.parametrize(
    ("twin", "word"), [({"not_applicable": "none"}, "suspect"), (pair(2, 3), "ok"), (pair(7, 0), "suspect")]
)
def test_the_opened_twin_speaks_for_a_detached_path(twin: dict[str, Any], word: str) -> None:
    hidden = {**count(90), "median_error": 0.0321}
    found = judged(hidden_gradient=hidden, opened_twin_stronger=twin)["hidden_gradient"]
    assert found.verdict == word
    assert "off by 0.032" in found.reason
    assert ("2 that it spares, against 3" in found.reason) == (word == "ok")


def test_exact_gates_allow_nothing() -> None:
    found = judged(
        undeclared_randomness=count(1),
        interrupted_graph=count(128),
        batch_dependence={**count(1), "declared_noise": False},
        probabilities=count(128),
        dynamic={"count": 2, "calls": {"grad": 2}, "n": 128},
        few_classes={"classes": 2, "n": 128},
    )
    words = {name: gate.verdict for name, gate in found.items() if gate.n}
    assert words == {
        "undeclared_randomness": "broken",
        "interrupted_graph": "broken",
        "batch_dependence": "broken",
        "probabilities": "suspect",
        "dynamic": "suspect",
        "few_classes": "not applicable",
    }
    assert judged(probabilities=count(127))["probabilities"].verdict == "ok"
    assert judged(few_classes={"classes": 4, "n": 128})["few_classes"].verdict == "ok"
    assert judged(batch_dependence={**count(9), "declared_noise": True})["batch_dependence"].verdict == "suspect"
    assert found["dynamic"].reason == "one pass of the model asks for grad 2 times"


def test_a_steady_gradient_has_to_be_proven() -> None:
    """Of ten samples, all must agree at 1 %: 11 / 1024 for nine is just too much."""
    words = [judged(unsteady_gradient=count(k, 10))["unsteady_gradient"].verdict for k in (0, 1, 5)]
    assert words == ["ok", "suspect", "suspect"]


def test_what_was_not_measured_is_not_applicable() -> None:
    found = judged(black_box_stronger={"not_applicable": "the model gets no sample right"})
    assert {gate.verdict for gate in found.values()} == {"not applicable"}
    assert found["black_box_stronger"].reason == "the model gets no sample right"
    assert found["noise_stronger"].reason == "it was not measured"
    assert counted("x", count(0, 0), Terms(), "", "").verdict == "not applicable"
    assert paired("x", 0, 0, 0.01, "", "").verdict == "ok"


def test_the_worst_gate_decides_and_only_for_the_numbers_that_it_concerns() -> None:
    suspect = {"silent_success": count(9), "saturated_cross_entropy": count(100)}
    doubted = verdict(list(judged(**suspect).values()))
    assert doubted.word == "suspect"
    assert doubted.reasons == (
        "silent success: 9 of 128 samples are fooled on the way and not at the last step; more than 4 are not chance",
    )
    assert len(verdict(list(judged(**suspect).values()), foreign=True).reasons) == 2
    assert verdict(list(judged(**suspect).values()), knowledge="black_box") == ("trusted", ())
    broken = list(judged(**suspect, undeclared_randomness=count(3)).values())
    assert verdict(broken).word == verdict(broken, knowledge="transfer").word == "broken"
    assert verdict(broken).reasons[0].startswith("undeclared randomness: 3 of 128")


def outcomes(*right: int, n: int = 128) -> np.ndarray:
    """Samples that are right, by their places."""
    found = np.zeros(n, dtype=np.float32)
    found[list(right)] = 1
    return found


def test_eps_zero_has_to_equal_clean() -> None:
    clean = outcomes(*range(100))
    assert eps_zero_differs(clean, clean, deterministic=True).verdict == "ok"
    off = eps_zero_differs(clean, outcomes(*range(99)), deterministic=True)
    assert (off.verdict, off.value, off.concerns) == ("broken", 1 / 128, ("white_box", "black_box", "transfer"))
    shares = np.full(20, 0.9, dtype=np.float32)
    down = shares.copy()
    down[:8] -= 0.1
    assert eps_zero_differs(shares, down, deterministic=False).verdict == "suspect"
    down[8:16] += 0.1
    assert eps_zero_differs(shares, down, deterministic=False).verdict == "ok"


def test_a_black_box_is_compared_with_all_white_boxes() -> None:
    """Of 100 samples that are right at first, 5 are too many and 4 are not: P(X >= 5) is .0034, P(X >= 4) is .018."""
    clean, black = outcomes(*range(100)), outcomes(*range(50, 100))
    whites = [outcomes(*range(0, 6), *range(70, 100)), outcomes(*range(1, 60))]
    found = black_box_cell_stronger(clean, black, whites)
    assert (found.verdict, found.value, found.n, found.threshold) == ("suspect", 0.05, 100, 0.05)
    whites.append(outcomes(0, *range(2, 60)))
    assert black_box_cell_stronger(clean, black, whites).verdict == "ok"
    assert black_box_cell_stronger(clean, black, [clean]).verdict == "suspect"
    assert black_box_cell_stronger(clean, outcomes(), [clean]).verdict == "broken"
    assert black_box_cell_stronger(clean, black, []).verdict == "not applicable"


def test_a_single_step_is_compared_with_the_walk() -> None:
    single, walk = outcomes(*range(7, 60)), outcomes(*range(60))
    assert single_step_cell_stronger(single, walk).verdict == "suspect"
    assert single_step_cell_stronger(walk, single).verdict == "ok"
    half = single.copy()
    half[:7] = 0.51
    assert single_step_cell_stronger(half, walk).verdict == "ok"


def test_half_of_the_passes_right_is_right() -> None:
    """Everywhere in a report: fooled is fewer than half."""
    clean, half, less = (np.full(128, share, dtype=np.float32) for share in (1.0, 0.5, 0.48))
    assert black_box_cell_stronger(clean, half, [clean]).value == 0
    assert black_box_cell_stronger(clean, less, [clean]).value == 1
    assert curve_ends_early(half, 10).value == 1
    assert curve_ends_early(less, 10).value == 0
    assert single_step_cell_stronger(half, clean).n == 0


def test_advice_says_how_and_claims_no_more_than_it_knows() -> None:
    found = judged(
        black_box_stronger=count(5), transfer_stronger=count(5), hidden_gradient={**count(9), "median_error": 0.1}
    )
    assert all(
        "`detaches` and `open_settings`" in found[x].what_to_do for x in ("hidden_gradient", "opened_twin_stronger")
    )
    assert found["black_box_stronger"].what_to_do.endswith("its gradients may be masked")
    assert found["transfer_stronger"].what_to_do.endswith("this model's may be masked")
    assert "may be masked" in black_box_cell_stronger(outcomes(0), outcomes(), [outcomes(0)]).what_to_do


def test_a_curve_has_to_end_below_guessing_or_be_known_to_fall() -> None:
    """Ten classes: of 128 samples guessing leaves 21 or fewer right, but for one chance in a hundred."""
    most = next(k for k in range(128) if tail(k, 128, 0.1) <= 0.01)
    early = curve_ends_early(outcomes(*range(most)), 10)
    assert (early.verdict, early.threshold) == ("suspect", most / 128)
    assert curve_ends_early(outcomes(*range(most - 1)), 10).verdict == "ok"
    unbounded = judged(unbounded_attack_fails=count(0))["unbounded_attack_fails"]
    assert curve_ends_early(outcomes(*range(90)), 10, unbounded).verdict == "ok"
    failed = judged(unbounded_attack_fails=count(60))["unbounded_attack_fails"]
    assert curve_ends_early(outcomes(*range(90)), 10, failed).verdict == "suspect"
