"""The tables of a report and the chapters in which a page shows them."""

from dataclasses import dataclass
from typing import NamedTuple

from . import failure, sheet
from .board import Board
from .convention import conventions
from .figure import Figure
from .fooled import fooled
from .minimum_norm import minimum_norms
from .ranking import differences, ranking
from .swap import swaps
from .table import Table
from .track import Track, comparison, tracks
from .trust_sheet import raised_gates, trust
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a report."""

    ranking: Table
    """The board."""
    differences: Table
    """Every row minus the baseline."""
    trust: Table
    """Which adversarial numbers can be believed."""
    gates: Table
    """What speaks against the others."""
    attacks: tuple[Table, ...]
    """Accuracy by attack and severity, one a norm."""
    fooled: Table
    """Which attack broke what."""
    minimum_norms: Table
    """How small a perturbation is enough."""
    conventions: Table
    """Numbers as other papers define them."""
    corruptions: Table
    """Accuracy by corruption and level."""
    contaminations: Table
    """Accuracy by contamination and rate."""
    collapse: Table
    """Metrics of hidden states by layer."""
    costs: Table
    """What each row costs."""
    swaps: tuple[Table, ...]
    """Mechanism swaps, a pair each."""
    comparison: Table
    """Every row under each way of training."""
    tracks: tuple[Track, ...]
    """The boards of further ways of training."""
    missing: Table
    """Cells without a result."""
    attempts: Table
    """Attempts that failed."""
    doubts: Table
    """Numbers that are null or invalid."""
    inapplicable: Table
    """What makes no sense and was not planned."""

    def all(self) -> list[Table]:
        """Return them in the order of the page."""
        found: list[Table] = []
        for name in self.__slots__:
            entry = getattr(self, name)
            for part in entry if isinstance(entry, tuple) else (entry,):
                found += (part.ranking, *part.folded) if isinstance(part, Track) else (part,)
        return found


def tables(board: Board) -> Tables:
    """Return the tables of a run."""
    return Tables(
        ranking(board),
        differences(board),
        trust(board),
        raised_gates(board),
        sheet.attacks(board),
        fooled(board),
        minimum_norms(board),
        conventions(board),
        sheet.corruptions(board),
        sheet.contaminations(board),
        sheet.collapse(board),
        sheet.costs(board),
        swaps(board.run),
        comparison(board),
        tracks(board),
        failure.missing(board.run),
        failure.attempts(board.run),
        failure.doubts(board),
        failure.inapplicable(board.run),
    )


class Chapter(NamedTuple):
    """One part of the evidence."""

    anchor: str
    """Where links lead."""
    title: str
    """Its heading."""
    short: str
    """Its name in the table of contents."""
    figures: tuple[str, ...] = ()
    """Its figures, by name."""
    open: tuple[Table, ...] = ()
    """Tables that are seen at once."""
    folded: tuple[Table, ...] = ()
    """Tables that readers open."""
    verdict: Verdict | None = None
    """What may be concluded from it; only a track's chapter has one."""


def chapters(found: Tables, figures: dict[str, Figure]) -> list[Chapter]:
    """Return the parts of the evidence that a run can fill."""
    attacked = (*found.attacks, found.fooled, found.minimum_norms)
    every = (
        Chapter(
            "trust", "Trust: which adversarial numbers can be believed", "Trust", (), (found.trust,), (found.gates,)
        ),
        Chapter("attacks", "Accuracy under attack", "Attacks", ("attack",), folded=attacked),
        Chapter("conventions", "Non-standard conventions", "Conventions", folded=(found.conventions,)),
        Chapter("corruptions", "Corruptions", "Corruptions", ("corruption", "severity"), folded=(found.corruptions,)),
        Chapter("contaminations", "Contamination", "Contamination", ("contamination",), folded=(found.contaminations,)),
        Chapter("collapse", "Collapse by layer", "Collapse", ("collapse",), folded=(found.collapse,)),
        Chapter("link", "Robustness against collapse", "Link", ("link",)),
        Chapter("costs", "Costs", "Costs", ("cost",), (found.costs,)),
        Chapter("swaps", "Mechanism swap", "Swap", open=found.swaps),
        Chapter("tracks", "The same rows, trained otherwise", "Training", open=(found.comparison,)),
        *(_track(track) for track in found.tracks),
    )
    return [c for c in every if any(name in figures for name in c.figures) or any(t.rows for t in (*c.open, *c.folded))]


def _track(track: Track) -> Chapter:
    return Chapter(
        track.anchor,
        f"Trained with {track.recipe}",
        track.recipe,
        (f"{track.anchor}-attack",),
        (track.ranking,),
        track.folded,
        track.verdict,
    )
