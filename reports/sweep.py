"""One shift with all its planned severities, and how they are averaged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from .run import Document, Run

Part = tuple[str, str]
"""A shift and a severity."""
COSTS = "cost"
"""Shift, and family, under which costs are recorded."""
TRUST = "trust"
"""Family of the cells that hold what is known about the attacks themselves; they have no records."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One shift with all its planned severities."""

    shift: str
    """Its label."""
    family: str
    """Its family."""
    severities: tuple[str, ...]
    """In the plan's order."""
    unit: str
    """Unit of the severity."""
    norm: str = ""
    """Ball of the perturbation; `none` where it has none, empty where the run does not say."""
    knowledge: str = ""
    """What an attack knows of the model; empty where the run does not say."""
    convention: str = ""
    """Whose way of measuring it reproduces where that is not ours."""
    minimum_norm: bool = False
    """Whether it looks for the smallest perturbation."""
    members: tuple["Sweep", ...] = ()
    """The attacks behind a worst case; empty for a shift that was run."""

    def places(self) -> dict[str, float]:
        """Return the severities that are numbers, with the number."""
        found = {severity: severity_number(severity) for severity in self.severities}
        return {severity: place for severity, place in found.items() if place is not None}


def severity_number(text: str) -> float | None:
    """Read a severity as a number; None where it is a word.

    >>> severity_number("8/255") == 8 / 255, severity_number("hard")
    (True, None)
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return None


def trapezoid(points: Mapping[Part, float]) -> dict[Part, float]:
    """Return the weights with which values at rising places average to the area under their curve over its width.

    >>> list(trapezoid({("clean", "0"): 0.0, ("pgd", "1"): 1.0, ("pgd", "3"): 3.0}).values())
    [0.16666666666666666, 0.5, 0.3333333333333333]
    """
    ordered = sorted(points.items(), key=lambda item: item[1])
    width = ordered[-1][1] - ordered[0][1]
    places = [ordered[0][1], *(place for _, place in ordered), ordered[-1][1]]
    return {part: (places[i + 2] - places[i]) / 2 / width for i, (part, _) in enumerate(ordered)}


def mean_weights(sweeps: Iterable[Sweep]) -> dict[Part, float]:
    """Return weights of a mean over the severities of a shift, then over shifts."""
    found = list(sweeps)
    return {(s.shift, v): 1 / len(s.severities) / len(found) for s in found for v in s.severities}


def planned_sweeps(run: Run) -> list[Sweep]:
    """Return the shifts of a run in the plan's order, without costs and what is known about the attacks themselves."""
    found: dict[str, Sweep] = {}
    for cell in run.planned:
        if cell["family"] not in (COSTS, TRUST):
            known = found.get(cell["shift"])
            severities = [*(known.severities if known else ()), *(cell.get("severities") or [""])]
            found[cell["shift"]] = _sweep(cell, tuple(dict.fromkeys(severities)))
    return list(found.values())


def _sweep(cell: Document, severities: tuple[str, ...]) -> Sweep:
    return Sweep(
        shift=cell["shift"],
        family=cell["family"],
        severities=severities,
        unit=_unit(cell.get("unit") or "", cell.get("norm") or ""),
        norm=cell.get("norm") or "",
        knowledge=cell.get("knowledge") or "",
        convention=cell.get("convention") or "",
        minimum_norm=bool(cell.get("minimum_norm")),
    )


def _unit(text: str, norm: str) -> str:
    """Return the unit of a ball where a shift has one for each: `patches, or eps (pixels)`."""
    each = text.split(", or ") if norm else [text]
    return each[0] if norm == "patches" else each[-1]
