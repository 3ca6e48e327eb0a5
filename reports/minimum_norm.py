"""How small a perturbation is enough: the median over samples, with what is not known named."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import quantile_test

from .board import Board
from .credence import Doubt
from .measure import Evidence
from .number import shown
from .ranking import name
from .run import Model
from .sheet import NORMS
from .sweep import Part, Sweep
from .table import Column, Entry, Table, said, words
from .worst import RIGHT, deterministic

Values = npt.NDArray[np.floating]


class Sizes(NamedTuple):
    """Between what the smallest perturbation that fools each sample of a network lies, one value a sample."""

    least: Values
    """What it is at least: the severity at which the sample still stood; 0 for errors without an attack."""
    most: Values
    """What it is at most: the measured size or the severity that fooled; infinite for samples that never fell."""


class Median(NamedTuple):
    """A median, and between which two values it lies with the asked confidence."""

    value: float
    """The median."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    coverage: float
    """Confidence of the interval; what the smallest and the largest value reach where they are too few for more."""


class Size(NamedTuple):
    """The median smallest perturbation of a row, as far as it is known."""

    least: Median
    """Of what it is at least."""
    most: Median
    """Of what it is at most; infinite where half of the samples never fell."""


def sizes(evidence: Evidence, model: Model, sweep: Sweep, clean: Sequence[Part]) -> Sizes | None:
    """Return the smallest perturbations that a network's outcomes tell of; None unless every severity is there.

    A sample is fooled where fewer than half of its passes are right. Where the attack looks for the smallest
    perturbation, its outcomes say how large each is and the network always answers alike, a size is exact. Of a worst
    case it is the smallest that is known of any member; members that were not planned for the network do not count.
    """
    own = [m for m in sweep.members if any(evidence.cell(model, part) for part in _parts(m))] or [sweep]
    groups = [_groups(evidence, model, member) for member in own]
    if any(not group or not group[0].index.equals(groups[0][0].index) for group in groups):
        return None
    found = [_sizes(evidence, model, *pair, clean) for pair in zip(own, groups, strict=True)]
    least, most = (np.minimum.reduce(side) for side in zip(*found, strict=True))
    return Sizes(least, most)


def _parts(sweep: Sweep) -> list[Part]:
    """Return an attack at its severities, from the smallest on."""
    return [(sweep.shift, severity) for severity, _ in sorted(sweep.places().items(), key=lambda item: item[1])]


def _groups(evidence: Evidence, model: Model, sweep: Sweep) -> list[pd.DataFrame]:
    """Return a network's outcomes at each severity, all of the same samples; none unless every severity is there."""
    found = [evidence.group(model, part) for part in _parts(sweep)]
    groups = [group for group in found if group is not None]
    same = all(group.index.equals(groups[0].index) for group in groups)
    return groups if same and len(groups) == len(found) else []


def _sizes(
    evidence: Evidence, model: Model, sweep: Sweep, groups: Sequence[pd.DataFrame], clean: Sequence[Part]
) -> Sizes:
    """Return what the outcomes under one attack say."""
    places = sorted(sweep.places().values())
    exact = sweep.minimum_norm and all("norm" in group and not group["norm"].hasnans for group in groups)
    exact = exact and deterministic(evidence, model, _parts(sweep))
    index = groups[0].index
    least, most = (np.full(len(index), size) for size in (places[-1], inf))
    under = [0.0, *places]
    for rung in reversed(range(len(places))):
        stands = groups[rung]["correct"].to_numpy() >= RIGHT
        size = groups[rung]["norm"].to_numpy() if exact else places[rung]
        least, most = np.where(stands, least, size if exact else under[rung]), np.where(stands, most, size)
    for part in clean:
        scores = evidence.accuracy(model, part).scores
        if scores is not None and scores.index.equals(index):
            least, most = (np.where(scores.to_numpy() >= RIGHT, x, 0.0) for x in (least, most))
    return Sizes(least, most)


def median(values: Sequence[float] | Values, confidence: float = 0.95) -> Median:
    """Return a median with its interval between two order statistics, which no distribution is assumed for.

    The interval is that of the binomial law of how many values lie below the median. Raises ValueError without values.

    >>> median([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    Median(value=2.5, low=0.0, high=5.0, coverage=0.95)
    >>> median([1.0, 2.0])
    Median(value=1.5, low=1.0, high=2.0, coverage=0.5)
    """
    if not len(values):
        raise ValueError("a median needs at least one value, got none")
    ordered = np.sort(np.asarray(values, dtype=float))
    value = float(ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1].mean())
    low, high = quantile_test(ordered, q=0, p=0.5).confidence_interval(confidence)
    if np.isnan(low) or np.isnan(high):
        return Median(value, float(ordered[0]), float(ordered[-1]), 1 - 2.0 ** (1 - len(ordered)))
    return Median(value, float(low), float(high), confidence)


def row_size(found: Sequence[Sizes], confidence: float) -> Size:
    """Return a row's median: over the samples of one network, or over the medians of several."""
    if len(found) == 1:
        return Size(*(median(side, confidence) for side in found[0]))
    return Size(*(median([float(np.median(own)) for own in side], confidence) for side in zip(*found, strict=True)))


def size_text(least: float, most: float) -> str:
    """Return a size as readers see it.

    >>> size_text(0.034, 0.034), size_text(0.05, 0.1), size_text(0.2, inf)
    ('0.034', '0.05 to 0.1', '> 0.2')
    """
    if most == inf:
        return f"> {least:.3g}"
    return f"{most:.3g}" if least == most else f"{least:.3g} to {most:.3g}"


def _line(found: Sequence[Sizes], planned: int, doubt: Doubt, confidence: float) -> list[Entry]:
    """Return the median with its interval, the censored share and what it rests on."""
    size = row_size(found, confidence)
    most = np.concatenate([x.most for x in found])
    method = "of samples: this network only" if len(found) == 1 else f"of the medians of {len(found)} networks"
    coverage = size.most.coverage
    method = f"order statistics {method}" + ("" if coverage == confidence else f", covers {100 * coverage:.3g} %")
    text, (low, high) = size_text(size.least.value, size.most.value), (size.least.low, size.most.high)
    last = f"> {max(x.least.max() for x in found):.3g}" if high == inf else f"{high:.3g}"
    said_of = [f"{len(found)} of {planned} networks"] if len(found) < planned else []
    said_of += [f"{'broken' if doubt.broken else 'suspect'}: {doubt.reason}"] if doubt.reason else []
    entry = Entry(
        text,
        f"[{low:.3g}, {last}]",
        size.most.value if size.least.value == size.most.value else text,
        low,
        None if high == inf else high,
        note="; ".join(said_of),
        chip=("broken" if doubt.broken else "suspect") if doubt.reason else "",
    )
    shares = [float(mask.mean()) for mask in (np.isinf(most), most == 0)]
    counts = [
        *(Entry(shown(share, share=True), value=share) for share in shares),
        Entry(f"{len(most):,}", value=len(most)),
    ]
    return [entry, *counts, Entry(method)]


def minimum_norms(board: Board) -> Table:
    """Return the median size of the smallest perturbation that fools, for every attack with a ladder and every row."""
    columns = (
        *words("ball", "attack", "row"),
        Column("median", "median size"),
        Column("censored", "still right at the largest", "%"),
        Column("clean_errors", "wrong without attack: 0", "%"),
        Column("samples", "samples, times networks"),
        *words("method"),
    )
    clean = [(s.shift, s.severities[0]) for s in board.family("clean")[:1]]
    rows = []
    for sweep in board.family("adversarial"):
        if len(sweep.places()) < len(sweep.severities) or not (sweep.minimum_norm or len(sweep.severities) > 1):
            continue
        for label in board.order:
            models = board.run.models(label)
            found = [x for x in (sizes(board.evidence, model, sweep, clean) for model in models) if x]
            start = (*said([NORMS.get(sweep.norm, "-"), sweep.shift]), name(board, label))
            measure = board.curve(sweep)
            if found:
                line = _line(found, len(models), board.against(label, measure), board.run.confidence)
            else:
                why = board.estimate(label, measure).reason or "no outcomes by sample"
                line = [Entry("-", note=why), *(Entry("-") for _ in columns[4:])]
            rows.append((*start, *line))
    caption = (
        "How small a perturbation is enough: the median over samples of the smallest that fools, in the ball's own "
        "unit. Attacks that look for the smallest say it exactly of deterministic networks; else a sample stood at one "
        "severity and fell at the next, so it lies between. A worst case takes the smallest of its attacks, "
        "sample by sample. Samples still right at the largest severity are only known to need more."
    )
    return Table("minimum-norms", caption, columns, tuple(rows))
