"""The worst case over all attacks of one ball: a sample is right only where none of them fooled it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from .frame import typed
from .measure import Evidence, Status
from .run import Model, Run
from .sweep import Part, Sweep

BALLS = {"patches": "patch", "tokens": "layer"}
"""Settings that are part of a ball beside its norm: side of a patch, layer whose input moves."""
RIGHT = 0.5
"""Share of passes from which on a sample counts as right; with a smaller one it is fooled, everywhere."""

HALF = "correct_first"
"""Column of the shares among the first half of the passes."""
Values = npt.NDArray[np.floating]


class Union(NamedTuple):
    """What several attacks leave of one network's samples."""

    scores: pd.Series | None
    """By sample, the share of right passes under the attack that fools it most; None with a reason."""
    status: Status
    """Whether it can be compared."""
    reason: str
    """Why it is not `ok`, or which attacks are not in it."""


def worst_sweeps(run: Run, sweeps: Iterable[Sweep]) -> list[Sweep]:
    """Return a worst case for each ball that several attacks of the standard convention search."""
    balls: dict[tuple[str, str], list[Sweep]] = {}
    for sweep in sweeps:
        if sweep.family == "adversarial" and not sweep.convention and sweep.norm not in {"", "none"} and sweep.places():
            settings = run.declared("shifts", sweep.shift).get("settings") or {}
            within = BALLS.get(sweep.norm, "")
            ball = f"{within} {settings[within]}" if within in settings else ""
            balls.setdefault((sweep.norm, ball), []).append(sweep)
    norms = [norm for norm, _ in balls]
    found = []
    for (norm, ball), members in balls.items():
        if len(members) > 1:
            name = norm if norms.count(norm) == 1 else f"{norm}, {ball or 'other'}"
            found.append(_sweep(f"worst case ({name})", members))
    return found


def _sweep(name: str, members: list[Sweep]) -> Sweep:
    places: dict[float, str] = {}
    for member in members:
        for severity, place in member.places().items():
            places.setdefault(place, severity)
    known = {member.knowledge for member in members}
    return Sweep(
        shift=name,
        family="adversarial",
        severities=tuple(places[place] for place in sorted(places)),
        unit=next((member.unit for member in members if member.unit), ""),
        norm=members[0].norm,
        # What doubts the gradients doubts the whole: the worst case is no lower than its strongest attack.
        knowledge=next((k for k in ("", "white_box", "black_box", "transfer", "none") if k in known), ""),
        members=tuple(members),
    )


def parts_within(members: Iterable[Sweep], place: float, smaller: bool) -> list[Part]:
    """Return the shifts and severities at a place; with `smaller`, at every place up to it."""
    return [
        (member.shift, severity)
        for member in members
        for severity, at in member.places().items()
        if at == place or (smaller and at < place)
    ]


def deterministic(evidence: Evidence, model: Model, parts: Iterable[Part]) -> bool:
    """Whether a network answers the same input alike, as its cells say; one that says nothing does not count."""
    cells = (evidence.cell(model, part) for part in parts)
    said = [evidence.run.facts(cell).get("deterministic") for cell in cells if cell]
    return True in said and False not in said


def union(evidence: Evidence, model: Model, members: Sequence[Sweep], place: float, clean: Sequence[Part]) -> Union:
    """Return what some attacks leave of a network's samples at one severity.

    What fools a deterministic network at a smaller severity lies in the larger ball too, and so does the clean image:
    it counts as fooled. An attack that is done but has no outcomes on this network is left out, and named; one that
    is still to be done makes the whole null. Of a stochastic network no attack is picked and judged on the same passes
    (see `crossed`), unless its cells tell nothing of halves.
    """
    here = parts_within(members, place, smaller=False)
    fixed = deterministic(evidence, model, here)
    wanted = [*clean, *parts_within(members, place, smaller=True)] if fixed else here
    planned = [part for part in wanted if evidence.cell(model, part)]
    out = [shift for shift in dict.fromkeys(shift for shift, _ in here) if shift not in {x for x, _ in planned}]
    without = [f"without {shift}: {evidence.run.why_unplanned(model.label, shift)}" for shift in out]
    scores: dict[Part, pd.Series] = {}
    faults = []
    for part in planned:
        found, where = evidence.accuracy(model, part), part[0]
        if found.scores is None:
            cell = evidence.cell(model, part)
            if cell and cell["key"] in evidence.run.cells and found.value is None:
                without.append(f"without {where}: {found.reason}")
                continue
            return Union(None, "null", f"{where}: {found.reason or 'no outcomes by sample'}")
        if found.status == "invalid":
            faults.append(f"{where}: {found.reason}")
        if any(not known.index.equals(found.scores.index) for known in scores.values()):
            return Union(None, "null", f"{where} was judged on other samples than the rest")
        scores[part] = found.scores
    if not scores or not any(part in planned for part in here):
        return Union(None, "null", without[0] if without else "not part of the plan")
    reasons = dict.fromkeys([*faults, *without])
    firsts = [] if fixed else [_first(evidence, model, part) for part in scores]
    return Union(_worst(list(scores.values()), firsts), "invalid" if faults else "ok", "; ".join(reasons))


def _first(evidence: Evidence, model: Model, part: Part) -> Values | None:
    """Return the shares of right passes among the first half of them; None where the cell does not say."""
    group = evidence.group(model, part)
    known = None if group is None or HALF not in group else group[HALF].to_numpy()
    return None if known is None or np.isnan(known).any() else known


def _worst(scores: Sequence[pd.Series], firsts: Sequence[Values | None]) -> pd.Series:
    halves = [half for half in firsts if half is not None]
    shares = np.array([score.to_numpy() for score in scores])
    whole = bool(halves) and len(halves) == len(scores)
    found = crossed(shares, np.array(halves)) if whole else shares.min(0)
    return pd.Series(found, scores[0].index)


def crossed(shares: Values, firsts: Values) -> Values:
    """Return each sample's share of right passes under the attack that fools it most, with no gain from the choice.

    One line an attack: its shares over all passes, and over the first half. The attack that one half picks is judged
    on the other half, both ways, and the two are averaged. Of equal attacks the first is picked.

    >>> crossed(np.array([[0.5], [0.5]]), np.array([[0.25], [0.75]]))
    array([0.75])
    """
    # Stored shares are float32: rounded, equal counts of passes are equal.
    halves = np.round([firsts, 2 * shares - firsts], 6)
    picked = halves.argmin(1)[:, None]
    found: Values = np.take_along_axis(halves[::-1], picked, 1)[:, 0].mean(0)
    return found


def add_worst_cases(evidence: Evidence, sweeps: Iterable[Sweep], clean: Sequence[Part]) -> None:
    """Add records and outcomes of the worst cases of every network; a record that cannot be made says why."""
    rows, groups = [], {}
    about = {row["label"]: row for row in evidence.run.rows}
    models = [model for label in about for model in evidence.run.models(label)]
    for sweep in sweeps:
        for model in models:
            for severity, place in sweep.places().items():
                planned = [p for p in parts_within(sweep.members, place, smaller=False) if evidence.cell(model, p)]
                if not planned:
                    continue
                found = union(evidence, model, sweep.members, place, clean)
                if found.scores is not None:
                    groups[model, (sweep.shift, severity)] = found.scores.to_frame("correct")
                row = about[model.label]
                rows.append({**_record(model, sweep, severity, found), **_row(row)})
    if rows:
        evidence.add(typed(rows), groups)


def _row(row: dict[str, object]) -> dict[str, object]:
    return {
        "variant": row.get("variant", ""),
        "role": row.get("role", ""),
        "variant_family": row.get("family", ""),
    }


def _record(model: Model, sweep: Sweep, severity: str, found: Union) -> dict[str, object]:
    scores = found.scores
    return {
        "label": model.label,
        "fold": model.fold,
        "training_seed": model.seed,
        "shift": sweep.shift,
        "shift_family": sweep.family,
        "severity": severity,
        "severity_unit": sweep.unit,
        "metric": "accuracy",
        "point": "",
        "layer": -1,
        "value": None if scores is None else float(scores.mean()),
        "deviation": None if scores is None or len(scores) < 2 else float(scores.std(ddof=1)),
        "n": 0 if scores is None else len(scores),
        "unit": "1",
        "better": "higher",
        "status": found.status,
        "reason": found.reason,
        "key": "",
    }
