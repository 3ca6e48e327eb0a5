"""How much more than its reference a variant or an attack may cost: the goals of the built-in ones, as data."""

from collections.abc import Iterable, Mapping
from typing import Literal

from .comparison import Comparison, Quantity

Verdict = Literal["met", "missed", "not decided", ""]

LAYER: Mapping[int, Mapping[str, float]] = {
    197: {
        "elliptical": 1.05,
        "neutreno": 1.05,
        "softmax_plus_one": 1.05,
        "learned_sink": 1.05,
        "static_metric": 1.05,
        "random_metric": 1.05,
        "quest": 1.10,
        "l2": 1.20,
        "kde": 1.20,
        "qk_norm": 1.20,
        "gated": 1.20,
        "twicing": 1.6,
        "differential": 1.6,
        "mgk": 1.6,
    },
    1024: {"twicing": 2.0, "differential": 2.0, "mgk": 2.0},
}
"""Largest ratio of a layer's time, forward and backward with its projections, to fused softmax: by tokens and label."""

EXPLICIT: Mapping[int, Mapping[str, Mapping[Quantity, float]]] = {
    1024: {"elliptical": {"forward": 1 / 2.2, "forward and backward": 1 / 1.5, "live memory": 1 / 10}},
}
"""Largest ratio of a fused form to the explicit one, attention alone: by tokens, label and quantity."""

SPEED = 0.95
"""Least speed of our PGD, in evaluations a second of which a call needs its own number, over that of torchattacks."""

LADDERS: Mapping[str, float] = {"0.05,0.1,0.15,0.2,0.25,0.3": 1 / 3}
"""Largest ratio of a ladder's time to that of one attack an eps, by its rungs; the smaller eps is, the fewer fall."""

SAVED = 0.75
"""Largest ratio of the bytes that are kept for a backward pass, weights left out."""

TIMED: Quantity = "forward and backward"
"""What the goals of layers speak of."""
FUSED, EXPLICIT_FORM, TORCHATTACKS = "fused softmax", "explicit form", "torchattacks"
"""The references."""


def with_goals(tokens: Iterable[int]) -> list[str]:
    """Return the labels that have a goal at one of some numbers of tokens, sorted.

    >>> with_goals([65, 1024])
    ['differential', 'elliptical', 'mgk', 'twicing']
    """
    return sorted({label for count in tokens for label in (*LAYER.get(count, {}), *EXPLICIT.get(count, {}))})


def goal(comparison: Comparison) -> float | None:
    """Return the largest ratio that is wanted; None where nothing is asked for.

    >>> goal(Comparison("pgd", TORCHATTACKS, "attack", 16, work=0.38))  # what is left out has to be saved
    0.4
    """
    if comparison.reference == TORCHATTACKS:
        return _of_attacks(comparison)
    if comparison.reference == EXPLICIT_FORM:
        return EXPLICIT.get(comparison.tokens, {}).get(comparison.subject, {}).get(comparison.quantity)
    return LAYER.get(comparison.tokens, {}).get(comparison.subject) if comparison.quantity == TIMED else None


def _of_attacks(comparison: Comparison) -> float | None:
    if comparison.quantity == "saved memory":
        return SAVED
    if comparison.quantity == "ladder":
        return LADDERS.get(comparison.severity)
    return None if comparison.work is None else comparison.work / SPEED


def verdict(comparison: Comparison) -> Verdict:
    """Say whether a goal is missed beyond doubt (whole interval above), met beyond doubt, or not decided; "" without.

    >>> c = Comparison("quest", FUSED, "forward and backward", 197, ratio=1.12, low=1.08, high=1.16)
    >>> verdict(c)
    'not decided'
    """
    wanted = goal(comparison)
    if wanted is None or comparison.low is None or comparison.high is None:
        return ""
    if comparison.low > wanted:
        return "missed"
    return "met" if comparison.high <= wanted else "not decided"


def missed(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return those that miss their goal beyond their interval."""
    return [comparison for comparison in comparisons if verdict(comparison) == "missed"]
