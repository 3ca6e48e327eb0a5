"""What may be concluded from a run and what may not, in words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import spearmanr
from statsmodels.stats.multitest import multipletests

from .board import Board
from .difference import Difference
from .measure import Measure
from .number import p_value, phrase, plural, shown, span
from .ranking import ranks
from .trust_sheet import trust_sentence


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says."""

    headline: str
    """One sentence: what may be concluded."""
    sentences: tuple[str, ...]
    """What it rests on, and what it does not say."""
    noise: tuple[str, ...]
    """The noise floor, in words."""


def _points(found: Difference, measure: Measure) -> str:
    assert found.value is not None
    unit = " points" if measure.share else ""
    interval = span(found.low, found.high, measure.share, found.value, sign=True)
    return f"{shown(found.value, measure.share, sign=True)}{unit}" + (f" {interval}" if interval else "")


class Parted(NamedTuple):
    """The rows as they lie about the baseline."""

    above: list[str]
    """Separated from it, and higher."""
    below: list[str]
    """Separated from it, and lower."""
    level: list[str]
    """Compared with it and not separated."""
    apart: list[str]
    """Not compared: one of the two numbers is missing, invalid or broken."""


def _names(board: Board, labels: Iterable[str], criterion: Measure) -> str:
    """Return rows in a sentence, those with a suspect number marked, and those with one that is never compared."""
    said = []
    for label in labels:
        found = board.estimate(label, criterion)
        mark = "suspect" if found.doubt else found.status if found.status in ("broken", "invalid") else ""
        said.append(f"{board.short(label)} ({mark})" if mark else board.short(label))
    return ", ".join(said)


def _leader(board: Board, criterion: Measure) -> list[str]:
    """Say which row reads highest, and which rows its interval does not part from."""
    places = ranks(board, criterion)
    if not places:
        return [f"No row has a valid number for {criterion.heading}."]
    best = next(label for label in board.order if label in places)
    estimate = board.estimate(best, criterion)
    among = "" if len(places) == len(board.labels) else f" of the {plural(len(places), 'row')} that have it"
    number = phrase(estimate, criterion.share)
    lines = [f"Highest {criterion.heading}{among}: {board.short(best)}, {number} ({estimate.method})."]
    level = [x for x in board.order if x in places and x != best and places[x].first == 1]
    if level:
        names = _names(board, level, criterion)
        lines.append(f"Its interval overlaps that of {names}: the order among them is not settled.")
    return lines


def _separated(board: Board, criterion: Measure, base: str) -> Parted:
    """Return the rows above and below the baseline after Holm's correction, and the rest."""
    found = {x: board.difference(x, base, criterion) for x in board.order if x not in (base, *board.twins)}
    apart = [x for x, difference in found.items() if difference.value is None]
    tested = {x: d for x, d in found.items() if d.p is not None and d.n_pairs >= 2}
    if not tested:
        return Parted([], [], [x for x in found if x not in apart], apart)
    alpha = 1 - board.run.confidence
    rejected = multipletests([d.p for d in tested.values()], alpha=alpha, method="holm")[0]
    parted = [x for x, reject in zip(tested, rejected, strict=True) if reject]
    above = [x for x in parted if (tested[x].value or 0.0) > 0]
    below = [x for x in parted if x not in above]
    return Parted(above, below, [x for x in found if x not in (*parted, *apart)], apart)


def _pairs(board: Board, criterion: Measure, base: str) -> list[str]:
    """Say how far each row lies from the baseline, and whether that is more than the baseline lies from itself."""
    floor = max((abs(board.difference(x, base, criterion).value or 0.0) for x in board.twins), default=None)
    lines = []
    for label in [x for x in board.order if x not in (base, *board.twins)]:
        found = board.difference(label, base, criterion)
        names = f"{board.short(label)} minus {board.short(base)}"
        if found.value is None:
            lines.append(f"{names}: not known ({found.reason}).")
            continue
        p = "" if found.p is None else f", p {p_value(found.p) if found.p < 0.001 else '= ' + p_value(found.p)}"
        beyond = "" if floor is None else ", more than" if abs(found.value) > floor else ", no more than"
        beyond += " the A/A difference" if beyond else ""
        doubt = " (suspect)" if found.doubt else ""
        lines.append(f"{names}, {criterion.heading}: {_points(found, criterion)}{p}{beyond}{doubt}.")
    return lines


def _noise(board: Board, criterion: Measure) -> list[str]:
    """Say how far the baseline lies from itself, trained again."""
    base, twins = board.baseline, board.twins
    if base is None:
        return ["No baseline was planned, so no difference can be judged."]
    if not twins:
        return [f"No A/A row was planned: how far {board.short(base)} lies from itself, trained again, is not known."]
    lines = []
    for twin in twins:
        found = board.difference(twin, base, criterion)
        names = f"{board.short(twin)} minus {board.short(base)}"
        if found.value is None:
            lines.append(f"{names}: not known ({found.reason}).")
            continue
        lines.append(f"The same mechanism trained again: {names} is {_points(found, criterion)} ({found.method}).")
        if found.detectable is not None:
            over = (
                plural(found.n_pairs, "pair") + " of networks" if found.n_pairs > 1 else f"{found.n_samples:,} samples"
            )
            least = f"{shown(found.detectable, criterion.share)}{' points' if criterion.share else ''}"
            lines.append(
                f"Resolution: {over} show a difference of {least} four times out of five; smaller ones mostly hide."
            )
        if found.n_pairs == 1 and found.excludes_zero:
            lines.append(
                "Two networks of one and the same method differ by more than their samples explain: "
                "an interval over samples, or its p, is no evidence about methods."
            )
        if found.n_pairs > 1 and found.excludes_zero:
            lines.append(
                "The interval of this A/A difference excludes zero although nothing differs: doubt the others."
            )
    return lines


def _link(board: Board, criterion: Measure) -> str:
    """Say what the run shows about collapse and robustness."""
    collapse = board.collapse
    if collapse is None:
        return "Collapse was not measured, so nothing is said about its part in robustness."
    found = [(board.estimate(x, collapse), board.estimate(x, criterion)) for x in board.labels if x not in board.twins]
    good = [(a.value, b.value) for a, b in found if a.status == b.status == "ok"]
    firm = "Whether collapse causes fragility cannot be concluded: nothing here changes collapse and nothing else."
    if len(good) < 4 or min(len({a for a, _ in good}), len({b for _, b in good})) < 2:
        return f"{firm} A correlation needs more rows than {len(good)}."
    rho = float(spearmanr([a for a, _ in good], [b for _, b in good]).statistic)
    pair = f"{collapse.heading} and {criterion.heading}"
    return f"{firm} Over {len(good)} rows, {pair} have Spearman {shown(rho, sign=True)}: it describes them."


def verdict(board: Board) -> Verdict:
    """Return what may be concluded; a run of one network a row never says that a method is better."""
    criterion, base = board.criterion, board.baseline
    if criterion is None:
        return Verdict("Nothing can be concluded: no accuracy has been measured yet.", (), ())
    planned = board.candidates[0]
    sentences = _leader(board, criterion)
    if planned.name != criterion.name:
        sentences.insert(
            0, f"The planned criterion, {planned.heading}, is not measured yet; {criterion.heading} stands in."
        )
    noise = tuple(_noise(board, criterion))
    if base is not None:
        sentences += _pairs(board, criterion, base)
    if board.networks < 2:
        headline = (
            "No method may be called better or worse than another from this run: every row is one trained network, and "
            "two trainings of the same method differ too."
        )
        sentences.append(
            "What may be concluded: how these very networks behave on these inputs. A difference well beyond the noise "
            "floor is a reason to train more seeds, not a result."
        )
    elif base is None:
        headline = "No baseline was planned: rows are described, not compared."
    else:
        headline = _headline(board, _separated(board, criterion, base), base, criterion)
        sentences.append(
            "Separated means: paired Student t over networks, Holm-corrected over the rows of a board at "
            f"{100 * (1 - board.run.confidence):g} %. "
            "Intervals beside single differences are not corrected. Not separated does not mean equal."
        )
    sentences += [sentence for sentence in (trust_sentence(board), _tracks(board)) if sentence]
    return Verdict(headline, (*sentences, _link(board, criterion)), noise)


def _tracks(board: Board) -> str:
    """Say of the main board which rows are not on it; empty where all are."""
    names = [other.track for other in board.others]
    if not names or board.track != board.run.tracks[0]:
        return ""
    return f"Rows trained with {', '.join(names)} are ranked apart, each track in a chapter of its own."


def _headline(board: Board, parted: Parted, base: str, criterion: Measure) -> str:
    above, below, level, apart = (_names(board, labels, criterion) for labels in parted)
    shown_base = _names(board, [base], criterion)
    parts = [f"{above} above {shown_base}"] if above else []
    parts += [f"{below} below {shown_base}"] if below else []
    rest = [f"not separated from it: {level}"] if level else []
    rest += [f"not compared: {apart}"] if apart else []
    if parts:
        return f"On {criterion.heading}, under this protocol: {'; '.join([*parts, *rest])}."
    if level:
        beside = f"; not compared: {apart}" if apart else ""
        return f"No row is separated from {shown_base} on {criterion.heading}{beside}."
    return f"Nothing can be compared with {shown_base}: {apart}." if apart else f"Only {shown_base} was planned."
