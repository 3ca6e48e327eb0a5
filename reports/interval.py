"""How far a mean may lie from what was measured, by the libraries' own statistics."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint


class Interval(NamedTuple):
    """A range of values that the data do not rule out."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""

    def within(self, low: float, high: float) -> "Interval":
        """Return the part inside a range that the quantity cannot leave."""
        return Interval(min(max(self.low, low), high), max(min(self.high, high), low))


def wilson(count: int | float, n: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson interval of a share (Wilson 1927).

    For values between 0 and 1 that are not all 0 or 1, `count` is their sum and the interval is too wide, never too
    narrow: their variance is at most that of zeros and ones with the same mean.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    low, high = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high))


def student(mean: float, deviation: float, n: int, confidence: float = 0.95) -> Interval:
    """Return Student's t interval of a mean of `n` values; without spread it is a point.

    >>> [round(end, 2) for end in student(0.0, 2.0, 4)]
    [-3.18, 3.18]
    """
    if deviation == 0:
        return Interval(mean, mean)
    low, high = stats.t.interval(confidence, n - 1, loc=mean, scale=deviation / np.sqrt(n))
    return Interval(float(low), float(high))


def student_p(mean: float, deviation: float, n: int) -> float:
    """Return the two-sided p value of a mean of zero; without spread it is 1 for zero and 0 otherwise."""
    if deviation == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / (deviation / np.sqrt(n)), n - 1))


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p value that gains and losses are equally likely (McNemar 1947).

    >>> round(mcnemar(1, 6), 3)
    0.125
    """
    return float(statsmodels_mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


def detectable(spread: float, n: int, models: bool, confidence: float = 0.95, power: float = 0.8) -> float:
    """Return the difference that paired data would show with this power: (quantile + quantile) spread / sqrt(n).

    `spread` is the root mean square of the paired differences where there is no true one: for outcomes of samples the
    square root of the share that differs; quantiles are Student's where the pairs are networks.

    >>> round(detectable(0.1**0.5, 1000, models=False), 3)
    0.028
    """
    law = stats.t(n - 1) if models else stats.norm()
    return float((law.ppf((1 + confidence) / 2) + law.ppf(power)) * spread / np.sqrt(n))
