"""One reason to doubt an adversarial number: what was counted, how much of it is chance, and what to do about it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from scipy.stats import binom

Doubt = Literal["ok", "suspect", "broken", "not applicable"]
Facts = Mapping[str, Any]

WHITE: tuple[str, ...] = ("white_box",)
"""Numbers of attacks that follow the model's gradients."""
ALL: tuple[str, ...] = ("white_box", "black_box", "transfer")
"""Numbers of every attack."""
HALF = 0.5
"""Share of the discordant pairs that the weaker of two equal attacks wins; beyond it lies most of the samples."""


class Terms(NamedTuple):
    """What passes for chance."""

    level: float = 0.01
    """Chance at which a sound model trips one gate: one in a hundred."""
    tolerated: float = 0.01
    """Share of samples on which a sound attack may fail: what cannot be told from it is chance."""


class Gate(NamedTuple):
    """One check and what came of it."""

    name: str
    """What it would be raised for."""
    verdict: Doubt
    """`suspect`: doubt, with a number; `broken`: numbers of this model mean nothing until it is explained."""
    value: float | None
    """What was measured, most often a share of samples; None where nothing was."""
    n: int
    """Number of samples behind it; where pairs are compared, of those on which the two differ."""
    threshold: float | None
    """The smallest value that raises it; None where there is none that could."""
    reason: str
    """What was counted, in words."""
    what_to_do: str
    """What to try when it is raised."""
    concerns: tuple[str, ...] = WHITE
    """Numbers of which attacks it casts doubt on, by what they know of the model (see `Shift.knowledge`)."""
    foreign: bool = False
    """Whether it casts doubt only on attacks that climb the plain cross-entropy, as other tools do."""


def most_by_chance(n: int, share: float, level: float) -> int:
    """Return the largest count out of n that a share explains: more has a probability of at most the level.

    Counts above it are those whose one-sided exact interval (Clopper and Pearson 1934) lies above the share.

    >>> most_by_chance(128, 0.01, 0.01), most_by_chance(10, 0.5, 0.05)
    (4, 8)
    """
    return int(binom.isf(level, n, share)) if n else 0


def counted(
    name: str, fact: Facts, terms: Terms, says: str, advice: str, *, majority: Doubt = "suspect", foreign: bool = False
) -> Gate:
    """Judge a count of samples that the attack, or the model, ought to have none of.

    `majority` is the verdict where it is more than half of all such samples, by the same bound.
    """
    skipped = unmeasured(name, fact, advice)
    if skipped:
        return skipped
    count, n = int(fact["count"]), int(fact["n"])
    if not n:
        return Gate(name, "not applicable", None, 0, None, "no sample is left to count", advice, foreign=foreign)
    allowed = most_by_chance(n, terms.tolerated, terms.level)
    verdict: Doubt = "ok"
    if count > allowed:
        verdict = majority if count > most_by_chance(n, HALF, terms.level) else "suspect"
    reason = f"{count} of {n} samples {says}; more than {allowed} are not chance"
    return Gate(name, verdict, count / n, n, (allowed + 1) / n, reason, advice, foreign=foreign)


def paired(name: str, weaker: int, stronger: int, level: float, says: str, advice: str) -> Gate:
    """Judge whether an attack that ought to be weaker succeeds alone more often than the stronger one does.

    Were they equal, each would win half of the samples on which they differ: exact one-sided test (McNemar 1947).
    """
    n = weaker + stronger
    allowed = most_by_chance(n, HALF, level)
    reason = f"{says}: {weaker} samples against {stronger} the other way"
    threshold = (allowed + 1) / n if n > allowed else None
    return Gate(name, "suspect" if weaker > allowed else "ok", weaker / n if n else 0.0, n, threshold, reason, advice)


def worst(compared: Sequence[Gate]) -> Gate:
    """Return, of pairs of attacks, a raised gate if there is one, else that in which the weaker attack came nearest."""
    return max(compared, key=lambda gate: (gate.verdict != "ok", (2 * (gate.value or 0.0) - 1) * gate.n))


def exact(name: str, fact: Facts, says: str, advice: str, raised: Doubt, concerns: tuple[str, ...] = WHITE) -> Gate:
    """Judge a count that has to be 0, since nothing about it is chance."""
    skipped = unmeasured(name, fact, advice)
    if skipped:
        return skipped._replace(concerns=concerns)
    count, n = int(fact["count"]), int(fact["n"])
    reason = f"{count} of {n} samples {says}"
    word = raised if count else "ok"
    return Gate(name, word, count / n if n else 0.0, n, 1 / n if n else None, reason, advice, concerns)


def unmeasured(name: str, fact: Facts, advice: str) -> Gate | None:
    """Return the gate of something that was not measured, None where it was."""
    if "not_applicable" not in fact:
        return None
    return Gate(name, "not applicable", None, 0, None, str(fact["not_applicable"]), advice)
