"""How many times longer one piece of code takes than another, when both run side by side in random order."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from scipy import stats

Call = Callable[[], object]
LEAST_ROUNDS = 5
"""Fewer rounds say nothing about their own spread."""
RESAMPLES = 1999


class Pair(NamedTuple):
    """A piece of code and the one that it is measured against."""

    subject: Call
    """What is judged."""
    reference: Call
    """What it is compared with."""


class Turn(NamedTuple):
    """One pair in one round."""

    pair: int
    """Index of the pair."""
    reference_first: bool
    """Which of the two runs first."""


class Times(NamedTuple):
    """Seconds of one pair, round by round."""

    subject: list[float]
    """Of what is judged."""
    reference: list[float]
    """Of what it is compared with, in the same rounds."""


class Ratio(NamedTuple):
    """A ratio of medians with its interval."""

    value: float
    """Median of the subject over median of the reference."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""


def schedule(rounds: Sequence[int], seed: int) -> list[list[Turn]]:
    """Return who runs when: each pair once a round for as many rounds as it wants, in an order drawn for each round.

    Which side of a pair runs first is a coin's fall.
    """
    generator = random.Random(seed)
    found = []
    for number in range(max(rounds, default=0)):
        pairs = [pair for pair, wanted in enumerate(rounds) if number < wanted]
        generator.shuffle(pairs)
        found.append([Turn(pair, generator.random() < 0.5) for pair in pairs])
    return found


def timed(
    pairs: Sequence[Pair], turns: Sequence[Sequence[Turn]], clock: Callable[[], float] = time.thread_time
) -> list[Times]:
    """Run every turn and return the seconds of each pair, in the order of the pairs.

    The two sides of a pair run one after the other, so that a machine that slows down or heats up slows both. The
    default clock counts the processor's time of this thread: where torch has one thread that is the time on an idle
    machine, and other processes disturb it through shared caches only. What a call returns is freed after the clock
    was read.
    """
    found = [Times([], []) for _ in pairs]
    with _no_collection():
        for turn in (turn for own in turns for turn in own):
            pair, times = pairs[turn.pair], found[turn.pair]
            sides = [(pair.subject, times.subject), (pair.reference, times.reference)]
            for call, seconds in reversed(sides) if turn.reference_first else sides:
                start = clock()
                kept = call()
                seconds.append(clock() - start)
                del kept
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside a timed call."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def ratio(times: Times) -> Ratio:
    """Return the ratio of medians; its interval is a percentile bootstrap over rounds, both sides of one together.

    >>> ratio(Times([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]))  # twice as long in every round
    Ratio(value=2.0, low=2.0, high=2.0)
    """
    sides = (np.asarray(times.subject), np.asarray(times.reference))
    found = stats.bootstrap(
        sides,
        lambda a, b, axis: np.median(a, axis) / np.median(b, axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    value = float(np.median(sides[0]) / np.median(sides[1]))
    return Ratio(value, float(found.low), float(found.high))
