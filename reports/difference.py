"""How far one row lies from another, paired by sample or by network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .interval import Interval, detectable, mcnemar, student, student_p, wilson
from .measure import Measure, Reading

TWO = "these two networks only"
"""What a comparison of one network with one network is about."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row minus another."""

    value: float | None
    """The difference, or None with a reason."""
    low: float | None = None
    """Lower end of its interval."""
    high: float | None = None
    """Upper end of its interval."""
    p: float | None = None
    """Probability of a difference at least as large where there is none."""
    n_pairs: int = 0
    """Pairs of networks behind it."""
    n_samples: int = 0
    """Paired samples behind it, where there is one pair of networks."""
    detectable: float | None = None
    """Smallest difference that this much data shows four times out of five."""
    method: str = ""
    """How the interval and p were made, and what they are about."""
    reason: str = ""
    """Why there is none."""
    doubt: str = ""
    """Why a gate finds one of the two numbers suspect; empty where none does."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def pairs(ours: Sequence[Reading], theirs: Sequence[Reading]) -> list[tuple[Reading, Reading]]:
    """Pair networks by fold and seed; where no seed is shared, by fold and the order of seeds."""
    usable = [[r for r in side if r.value is not None and r.status == "ok"] for side in (ours, theirs)]
    other = {(r.model.fold, r.model.seed): r for r in usable[1]}
    exact = [(r, other[r.model.fold, r.model.seed]) for r in usable[0] if (r.model.fold, r.model.seed) in other]
    if exact:
        return exact
    found = []
    for fold in sorted({r.model.fold for r in usable[0]}):
        sides = [sorted((r for r in side if r.model.fold == fold), key=lambda r: r.model.seed) for side in usable]
        found += list(zip(*sides, strict=False))
    return found


def _over_samples(mine: Reading, base: Reading, measure: Measure, confidence: float) -> Difference:
    assert mine.value is not None
    assert base.value is not None
    value = mine.value - base.value
    if mine.scores is None or base.scores is None:
        return Difference(value, n_pairs=1, method=f"no outcomes by sample; {TWO}")
    common = mine.scores.index.intersection(base.scores.index)
    if len(common) < 2:
        return Difference(value, n_pairs=1, method=f"no samples in common; {TWO}")
    a, b = mine.scores[common].to_numpy(), base.scores[common].to_numpy()
    gaps, n = a - b, len(common)
    mean, deviation = float(gaps.mean()), float(gaps.std(ddof=1))
    spread = float(np.sqrt((gaps**2).mean()))
    interval = student(mean, deviation, n, confidence)
    p, method = student_p(mean, deviation, n), "paired Student t over samples"
    if measure.share and set(np.unique([a, b])) <= {0.0, 1.0}:
        p = mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()))
        method = "paired Student t over samples, exact McNemar p"
    if measure.share and spread == 0:
        bound = wilson(0, n, confidence).high
        interval, method = Interval(-bound, bound), "no sample differs: Wilson bound on the share that could"
    power = detectable(spread, n, models=False, confidence=confidence) if spread else None
    return Difference(value, *interval, p, 1, n, power, f"{method}; {TWO}")


def difference(
    ours: Sequence[Reading], theirs: Sequence[Reading], measure: Measure, confidence: float = 0.95
) -> Difference:
    """Return ours minus theirs: over samples where one pair of networks was read, over pairs where there are more.

    Null where no pair was read or every pair holds a number that is invalid or broken.
    """
    found = pairs(ours, theirs)
    if not found:
        bad = (r for r in [*ours, *theirs] if r.status != "ok")
        said = (f"broken: {r.reason}" if r.status == "broken" else r.reason for r in bad)
        return Difference(None, reason=next(said, "no two networks share a fold"))
    if len(found) == 1:
        return _over_samples(*found[0], measure, confidence)
    gaps = np.array([(a.value or 0.0) - (b.value or 0.0) for a, b in found])
    mean, deviation, n = float(gaps.mean()), float(gaps.std(ddof=1)), len(gaps)
    if np.allclose(gaps, mean, rtol=1e-12, atol=1e-12):
        return Difference(mean, n_pairs=n, method=f"equal in all {n} pairs of networks, no interval")
    return Difference(
        mean,
        *student(mean, deviation, n, confidence),
        student_p(mean, deviation, n),
        n,
        0,
        detectable(deviation, n, models=True, confidence=confidence),
        f"paired Student t over {n} pairs of networks",
    )
