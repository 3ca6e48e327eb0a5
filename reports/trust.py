"""Whether an adversarial number can be believed: verdicts from facts alone, each with its number and its threshold.

Nothing is hidden: a suspect number is shown and marked. Thresholds are exact binomial bounds at the sample size. The
gates are explained one by one in `docs/trust.md`. Gates between cells read `correct` of each sample: 0 or 1, or the
share of passes of a stochastic model, which is fooled where fewer than half of them are right.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .examination import examined
from .gate import ALL, Facts, Gate, Terms, counted, most_by_chance, paired, worst
from .worst import RIGHT

Correct = npt.NDArray[np.floating]
"""One number a sample, the samples in the same order everywhere."""


FEWEST = 30
"""Right samples from which on none seen says something: none of 30 still leaves up to 10 % possible (rule of three)."""


class Verdict(NamedTuple):
    """What the gates come to."""

    word: Literal["trusted", "suspect", "broken"]
    """The worst of them; `trusted` where none is raised."""
    reasons: tuple[str, ...]
    """One a raised gate, the worst first."""


def gates(facts: Facts, terms: Terms | None = None) -> list[Gate]:
    """Return every gate of what `attacks.trust.evidence` measured on one model."""
    return examined(facts, terms or Terms())


def verdict(found: Sequence[Gate], *, knowledge: str = "white_box", foreign: bool = False) -> Verdict:
    """Return what gates come to for the numbers of attacks that know this of the model.

    `foreign` adds the gates that concern only attacks that climb the plain cross-entropy, as other tools do.
    """
    heard = [gate for gate in found if knowledge in gate.concerns and (foreign or not gate.foreign)]
    raised = [gate for word in ("broken", "suspect") for gate in heard if gate.verdict == word]
    if not raised:
        return Verdict("trusted", ())
    reasons = tuple(f"{gate.name.replace('_', ' ')}: {gate.reason}" for gate in raised)
    return Verdict("broken" if raised[0].verdict == "broken" else "suspect", reasons)


def too_few(facts: Facts) -> str:
    """Return of how few samples an examination speaks where it cannot end in trust; empty where they are enough."""
    right = facts.get("right")
    if right is None or right >= FEWEST:
        return ""
    return f"only {right} of {facts.get('n')} examined samples are right, too few to trust"


def eps_zero_differs(clean: Correct, zero: Correct, *, deterministic: bool, terms: Terms | None = None) -> Gate:
    """Judge an attack at eps 0, which ought to leave every sample as it is.

    Of a deterministic model any difference breaks it; of a stochastic one, differences that favour one side.
    """
    level, name = (terms or Terms()).level, "eps_zero_differs"
    advice = "no number of this attack counts until it leaves the image alone at eps 0"
    lost, gained = int((zero < clean).sum()), int((zero > clean).sum())
    if deterministic:
        count, n = lost + gained, len(clean)
        reason = f"{count} of {n} samples answer otherwise at eps 0"
        word: Literal["ok", "broken"] = "broken" if count else "ok"
        return Gate(name, word, count / n if n else 0.0, n, 1 / n if n else None, reason, advice, ALL)
    both = [
        paired(name, *pair, level / 2, f"at eps 0 the model is {way} often right", advice)
        for way, pair in {"less": (lost, gained), "more": (gained, lost)}.items()
    ]
    return worst(both)._replace(concerns=ALL)


def black_box_cell_stronger(
    clean: Correct, black: Correct, whites: Sequence[Correct], terms: Terms | None = None
) -> Gate:
    """Judge a black box by the samples that it fools and every white box of the same ball and eps leaves standing."""
    advice = "its gradients may be masked: adapt the white box, and believe the worst case over all attacks only"
    name, right = "black_box_cell_stronger", ~_fooled(clean)
    if not whites:
        reason = "no white box of the same ball and eps was run"
        return Gate(name, "not applicable", None, 0, None, reason, advice)
    alone = right & _fooled(black) & ~np.any([_fooled(white) for white in whites], axis=0)
    fact = {"count": int(alone.sum()), "n": int(right.sum())}
    says = "fall to the black box and to no white box"
    return counted(name, fact, terms or Terms(), says, advice, majority="broken")


def single_step_cell_stronger(single: Correct, iterative: Correct, terms: Terms | None = None) -> Gate:
    """Judge an iterative attack by the samples on which one step of the same ball and eps succeeds alone."""
    one, many = _fooled(single), _fooled(iterative)
    return paired(
        "single_step_cell_stronger",
        int((one & ~many).sum()),
        int((many & ~one).sum()),
        (terms or Terms()).level,
        "one step fools what the iterative attack does not",
        "look for a gradient that leads astray: shorter steps, more restarts, an attack without gradients",
    )


def curve_ends_early(largest: Correct, classes: int, unbounded: Gate | None = None, terms: Terms | None = None) -> Gate:
    """Judge a security curve by its accuracy at the largest eps, which an adversary ought to bring below guessing.

    A curve that ends above it may still be believed where the examined model (`unbounded_attack_fails`) gives in to an
    attack without bounds.
    """
    n, right = len(largest), int((~_fooled(largest)).sum())
    allowed = most_by_chance(n, 1 / classes, (terms or Terms()).level)
    reason = f"the curve ends with {right} of {n} samples right; {allowed + 1} are more than guessing"
    late = right <= allowed
    if not late and unbounded is not None and unbounded.verdict == "ok":
        reason, late = f"{reason}, but an attack without bounds fools the model", True
    advice = "add larger eps, until nothing is left"
    threshold = (allowed + 1) / n if n else None
    return Gate(
        "curve_ends_early", "ok" if late else "suspect", right / n if n else 0.0, n, threshold, reason, advice, ALL
    )


def _fooled(correct: Correct) -> npt.NDArray[np.bool_]:
    return np.asarray(correct) < RIGHT
