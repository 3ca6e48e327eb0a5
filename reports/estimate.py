"""One number of the board with how sure it is, and about what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .interval import Interval, student, wilson
from .measure import Measure, Reading, Status

ONE = "these networks only: says nothing about another training run"
"""What an interval over samples is about."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number and its interval."""

    value: float | None
    """The number, or None with a reason."""
    low: float | None = None
    """Lower end of the interval; None where there is none."""
    high: float | None = None
    """Upper end of the interval."""
    n_seeds: int = 0
    """Trained networks behind it: folds times seeds."""
    n_samples: int = 0
    """Inputs behind it, in each network."""
    method: str = ""
    """How the interval was made, and what it is about."""
    status: Status = "ok"
    """Whether it can be compared."""
    reason: str = ""
    """Why it is not `ok`, or which networks are missing."""
    doubt: str = ""
    """Why a gate finds it suspect; empty where none does."""


def _over_samples(reading: Reading, measure: Measure, confidence: float) -> tuple[Interval | None, int, str]:
    """Return an interval for one network from the values of its samples."""
    assert reading.value is not None
    scores = reading.scores
    n = reading.n if scores is None else len(scores)
    deviation = reading.deviation if scores is None or len(scores) < 2 else float(scores.std(ddof=1))
    if measure.share and n > 0:
        binary = scores is not None and bool(scores.isin((0.0, 1.0)).all())
        if binary:
            return wilson(round(reading.value * n), n, confidence), n, f"Wilson over samples; {ONE}"
        if scores is None or not deviation:
            return wilson(reading.value * n, n, confidence), n, f"Wilson over samples, too wide if anything; {ONE}"
    if deviation is None or n < 2 or (measure.layer < 0 and not measure.share):
        return None, n, "one number, no interval"
    found = student(reading.value, deviation, n, confidence)
    what = "Student t over the samples' means" if measure.share else "Student t over inputs"
    return (found.within(0.0, 1.0) if measure.share else found), n, f"{what}; {ONE}"


def _over_networks(read: Sequence[Reading], measure: Measure, confidence: float) -> tuple[Interval | None, int, str]:
    """Return an interval for the mean of several networks; equal ones show no spread, which is not certainty."""
    values = np.array([reading.value for reading in read], dtype=float)
    mean, n = float(values.mean()), min(reading.n for reading in read)
    if np.allclose(values, mean, rtol=1e-12, atol=1e-12):
        if measure.share and n:
            return wilson(mean * n, n, confidence), n, f"Wilson over the samples of one of {len(read)} equal networks"
        return None, n, f"equal in all {len(read)} networks, no interval"
    found = student(mean, float(values.std(ddof=1)), len(values), confidence)
    folds, seeds = len({r.model.fold for r in read}), len({r.model.seed for r in read})
    method = f"Student t over {len(read)} networks ({_count(folds, 'fold')}, {_count(seeds, 'seed')})"
    return (found.within(0.0, 1.0) if measure.share else found), n, method


def estimate(readings: Sequence[Reading], measure: Measure, confidence: float = 0.95) -> Estimate:
    """Return the mean over networks, with an interval over networks, or over samples where there is one network.

    Null where no network was read. Where one is invalid or broken, so is the mean: it is shown and never compared.
    """
    read = [reading for reading in readings if reading.value is not None]
    if not read:
        return Estimate(None, status="null", reason=readings[0].reason if readings else "no network was planned")
    worst: tuple[Status, ...] = ("invalid", "broken")
    status: Status = next((s for s in worst if any(reading.status == s for reading in read)), "ok")
    reasons = [reading.reason for reading in read if reading.reason]
    if len(read) < len(readings):
        why = next(reading.reason for reading in readings if reading.value is None)
        reasons.append(f"{len(read)} of {len(readings)} networks; the others: {why}")
    reason = "; ".join(dict.fromkeys(reasons))
    values = np.array([reading.value for reading in read], dtype=float)
    if len(read) == 1:
        interval, n, method = _over_samples(read[0], measure, confidence)
    else:
        interval, n, method = _over_networks(read, measure, confidence)
    low, high = interval or (None, None)
    return Estimate(float(values.mean()), low, high, len(read), n, method, status, reason)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
