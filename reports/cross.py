"""The gates between the cells of one network: what its attacks say about each other."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .gate import Gate, Terms, worst
from .measure import Evidence
from .run import Model
from .sweep import Part, Sweep
from .trust import black_box_cell_stronger, curve_ends_early, eps_zero_differs, single_step_cell_stronger
from .worst import deterministic

Correct = npt.NDArray[np.floating]
CONTINUOUS = {"linf", "l2"}
"""Balls that grow until nothing of the image is left; a few patches never do."""


def cross_gates(
    evidence: Evidence,
    model: Model,
    norm: str,
    sweeps: Iterable[Sweep],
    clean: Sequence[Part],
    unbounded: Gate | None,
    terms: Terms,
) -> list[Gate]:
    """Return the gates between a network's cells in one ball; those that have nothing to compare are left out."""
    own = [s for s in sweeps if s.norm == norm and s.family == "adversarial" and not s.convention]
    attacks = [s for s in own if not s.members]
    start = _correct(evidence, model, clean[0]) if clean else None
    found = [_ends_early(evidence, model, own, unbounded, terms)] if norm in CONTINUOUS else []
    found.append(_single_step(evidence, model, attacks, terms))
    if start is not None:
        found.append(_eps_zero(evidence, model, attacks, clean[0], start, terms))
        found.append(_black_box(evidence, model, attacks, start, terms))
    return [gate for gate in found if gate is not None]


def _correct(evidence: Evidence, model: Model, part: Part) -> Correct | None:
    """Return the shares of right passes of a valid cell, in the order of the samples; None without them."""
    found = evidence.accuracy(model, part)
    return None if found.scores is None or found.status != "ok" else found.scores.to_numpy()


def _at(evidence: Evidence, model: Model, sweep: Sweep, place: float, size: int | None = None) -> Correct | None:
    """Return a network's outcomes under an attack at a place; None unless they are of as many samples."""
    text = next((severity for severity, at in sweep.places().items() if at == place), None)
    found = None if text is None else _correct(evidence, model, (sweep.shift, text))
    return found if found is not None and size in (None, len(found)) else None


def _eps_zero(
    evidence: Evidence, model: Model, attacks: Iterable[Sweep], clean: Part, start: Correct, terms: Terms
) -> Gate | None:
    fixed = deterministic(evidence, model, [clean])
    judged = []
    for sweep in attacks:
        zero = _at(evidence, model, sweep, 0.0, len(start))
        if zero is not None:
            gate = eps_zero_differs(start, zero, deterministic=fixed, terms=terms)
            judged.append(gate._replace(reason=f"{sweep.shift}: {gate.reason}"))
    return worst(judged) if judged else None


def _black_box(evidence: Evidence, model: Model, attacks: Sequence[Sweep], start: Correct, terms: Terms) -> Gate | None:
    """Compare each black box with all white boxes at every severity that they share, each at its share of the level."""
    pairs = []
    for black in (s for s in attacks if s.knowledge == "black_box"):
        for text, place in black.places().items():
            whites = [_at(evidence, model, s, place, len(start)) for s in attacks if s.knowledge == "white_box"]
            scores, known = _at(evidence, model, black, place, len(start)), [w for w in whites if w is not None]
            if scores is not None and known and len(known) == len([s for s in attacks if _meets(s, place)]):
                pairs.append((f"{black.shift} at {text}", scores, known))
    own = terms._replace(level=terms.level / max(len(pairs), 1))
    judged = [(name, black_box_cell_stronger(start, scores, whites, own)) for name, scores, whites in pairs]
    named = [gate._replace(reason=f"{name}: {gate.reason}") for name, gate in judged]
    order = ("not applicable", "ok", "suspect", "broken")
    return max(named, key=lambda gate: (order.index(gate.verdict), gate.value or 0.0), default=None)


def _meets(sweep: Sweep, place: float) -> bool:
    return sweep.knowledge == "white_box" and place in sweep.places().values()


def _single_step(evidence: Evidence, model: Model, attacks: Sequence[Sweep], terms: Terms) -> Gate | None:
    """Compare attacks of one step with those that say how many steps they take, at every severity that they share."""
    settings = {s.shift: evidence.run.declared("shifts", s.shift) for s in attacks if s.knowledge == "white_box"}
    single = [s for s in attacks if settings.get(s.shift, {}).get("single_step")]
    many = [s for s in attacks if ((settings.get(s.shift) or {}).get("settings") or {}).get("steps", 0) > 1]
    found = []
    for one in single:
        for walk in many:
            for text, place in one.places().items():
                scores = _at(evidence, model, one, place)
                other = None if scores is None else _at(evidence, model, walk, place, len(scores))
                if scores is not None and other is not None:
                    found.append((f"{one.shift} against {walk.shift} at {text}", scores, other))
    own = terms._replace(level=terms.level / max(len(found), 1))
    judged = [(name, single_step_cell_stronger(one, other, own)) for name, one, other in found]
    return worst([g._replace(reason=f"{name}: {g.reason}") for name, g in judged]) if judged else None


def _ends_early(
    evidence: Evidence, model: Model, own: Sequence[Sweep], unbounded: Gate | None, terms: Terms
) -> Gate | None:
    """Judge the accuracy at the largest eps of the strongest curve: the worst case where there is one."""
    chosen = [s for s in own if s.members] or [s for s in own if s.places()]
    ends = []
    for sweep in chosen:
        scores = _at(evidence, model, sweep, max(sweep.places().values()))
        if scores is not None and len(scores):
            ends.append((float(scores.mean()), scores))
    classes = _classes(evidence)
    if not ends or classes < 2:
        return None
    return curve_ends_early(min(ends, key=lambda end: end[0])[1], classes, unbounded, terms)


def _classes(evidence: Evidence) -> int:
    task = evidence.run.declarations("task")
    known, chance = task.get("classes"), task.get("chance")
    if isinstance(known, list):
        return len(known)
    return round(1 / chance) if isinstance(chance, int | float) and chance > 0 else 0
