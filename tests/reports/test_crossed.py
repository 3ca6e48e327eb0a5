"""A worst case of a stochastic network is not too low by chance: simulated passes with a known share of right ones."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from attnbench.reports.board import Board, board
from attnbench.reports.fooled import count
from attnbench.reports.run import load
from attnbench.reports.worst import crossed

ATTACKS, SAMPLES, PASSES, SHARE = 6, 200, 50, 0.58
ERROR = (SHARE * (1 - SHARE) / SAMPLES / PASSES) ** 0.5
"""Standard error of the mean over all samples, each judged on all passes."""
LINF = {"family": "adversarial", "norm": "linf", "knowledge": "white_box"}
NAMES = tuple(f"attack{number}" for number in range(ATTACKS))
Shares = npt.NDArray[np.floating]


def simulated() -> tuple[Shares, Shares]:
    """Return the shares over all passes and over the first half, one line an attack."""
    halves = np.random.default_rng(0).binomial(PASSES // 2, SHARE, (2, ATTACKS, SAMPLES))
    return halves.sum(0) / PASSES, halves[0] / (PASSES // 2)


def made(plan: Any, root: Path, halves: bool) -> Board:
    shares, firsts = simulated()

    def told(known: Shares) -> Any:
        lines = dict(zip(NAMES, known.tolist(), strict=True))
        return lambda label, fold, seed, shift, severity: lines.get(shift, [1.0] * SAMPLES)

    plan(
        labels=("softmax",),
        shifts={"clean": (("0",),), **dict.fromkeys(NAMES, (("0.1",),))},
        about=dict.fromkeys(NAMES, LINF),
        costs=False,
        correct=told(shares),
        first=told(firsts) if halves else None,
        facts=lambda cell: {"deterministic": False, "passes": PASSES},
    ).write(root)
    return board(load(root))


def worst(read: Board) -> float:
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    value = read.estimate("softmax", read.at(sweep, "0.1")).value
    assert value is not None
    return value


def test_equal_attacks_leave_what_each_of_them_leaves(plan: Any, tmp_path: Path) -> None:
    assert abs(worst(made(plan, tmp_path / "new", halves=True)) - SHARE) < 3 * ERROR
    older = worst(made(plan, tmp_path / "old", halves=False))
    assert older == pytest.approx(simulated()[0].min(0).mean())
    assert older < SHARE - 3 * ERROR


def test_one_attack_is_counted_on_all_its_passes(plan: Any, tmp_path: Path) -> None:
    """Of one attack both halves are averaged; of all together it is the cross-fitted share."""
    read = made(plan, tmp_path, halves=True)
    sweep = next(sweep for sweep in read.sweeps if sweep.members)
    found = count(read.evidence, read.run.models("softmax"), sweep, "0.1", [("clean", "0")])
    shares, firsts = simulated()
    assert [tally.fooled for tally in found.by_attack.values()] == (shares < 0.5).sum(1).tolist()
    assert found.together == (crossed(shares, firsts) < 0.5).sum()
    assert found.together < (shares.min(0) < 0.5).sum()


def test_each_half_judges_what_the_other_picked() -> None:
    """Halves of two attacks, four samples: clearly the second, clearly the first, a tie, and each half its own."""
    firsts = np.array([[0.8, 0.2, 0.4, 0.2], [0.4, 0.8, 0.4, 0.6]])
    seconds = np.array([[0.8, 0.4, 0.6, 0.8], [0.6, 0.8, 0.2, 0.4]])
    # The tie of the first halves goes to the first attack (0.6), the second halves pick the second (0.4).
    expected = [(0.6 + 0.4) / 2, (0.4 + 0.2) / 2, (0.6 + 0.4) / 2, (0.8 + 0.6) / 2]
    shares = ((firsts + seconds) / 2).astype(np.float32)
    np.testing.assert_allclose(crossed(shares, firsts.astype(np.float32)), expected, atol=1e-6)


def test_a_cell_without_halves_keeps_the_smallest_share_of_all() -> None:
    shares = np.array([[0.25], [0.75]])
    np.testing.assert_array_equal(crossed(shares, shares), [0.25])
