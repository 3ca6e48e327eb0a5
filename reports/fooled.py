"""Which attack broke what: how many samples each attack fools, how many it fools alone, and what all of them leave."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .board import Board
from .measure import Evidence
from .number import plural
from .ranking import name
from .run import Model
from .sheet import NORMS
from .sweep import Part, Sweep
from .table import Column, Entry, Table, estimated, said, words
from .worst import RIGHT, union


class Tally(NamedTuple):
    """How many samples an attack fools, counted over networks."""

    fooled: int
    """Samples that were right without it."""
    alone: int
    """Those that no other attack of the ball fools."""


class Count(NamedTuple):
    """What the attacks of one ball fool."""

    by_attack: dict[str, Tally]
    """Each attack that was judged at this severity."""
    together: int
    """Samples that any of them fools."""
    samples: int
    """Samples judged, times networks."""
    networks: int
    """Networks on which every attack was judged."""


def middle(sweep: Sweep) -> str:
    """Return the severity in the middle of those that all attacks of a worst case share, or of all where none is."""
    places = sweep.places()
    shared = [s for s, place in places.items() if all(place in m.places().values() for m in sweep.members)]
    found = shared or list(places)
    return found[len(found) // 2]


def count(evidence: Evidence, models: Sequence[Model], sweep: Sweep, severity: str, clean: Sequence[Part]) -> Count:
    """Count what each attack fools at one severity, on the networks on which all that were planned are done.

    What an attack fools in a deterministic network at a smaller severity counts here too.
    """
    place = sweep.places()[severity]
    tallies: dict[str, Tally] = {}
    together, samples, networks = 0, 0, 0
    for model in models:
        found = {m.shift: union(evidence, model, [m], place, clean) for m in sweep.members}
        whole = union(evidence, model, sweep.members, place, clean)
        if whole.scores is None:
            continue
        before = [evidence.accuracy(model, part).scores for part in clean]
        right = np.ones(len(whole.scores), dtype=bool)
        for scores in before:
            if scores is not None and scores.index.equals(whole.scores.index):
                right &= scores.ge(RIGHT).to_numpy()
        broken = {k: right & x.scores.lt(RIGHT).to_numpy() for k, x in found.items() if x.scores is not None}
        times = np.sum(list(broken.values()), axis=0)
        for shift, mask in broken.items():
            known = tallies.get(shift, Tally(0, 0))
            alone = int((mask & (times == 1)).sum())
            tallies[shift] = Tally(known.fooled + int(mask.sum()), known.alone + alone)
        together += int((right & whole.scores.lt(RIGHT).to_numpy()).sum())
        samples, networks = samples + len(right), networks + 1
    return Count(tallies, together, samples, networks)


def fooled(board: Board) -> Table:
    """Return what each attack of a ball fools at the ball's middle severity, row by row, and what all of them leave."""
    columns = (
        *words("ball", "severity", "row", "attack", "knows"),
        Column("accuracy", "accuracy", "%", "higher"),
        Column("fooled", "fooled"),
        Column("alone", "fooled by this one alone"),
        Column("samples", "samples, times networks"),
    )
    clean = [(s.shift, s.severities[0]) for s in board.family("clean")[:1]]
    rows: list[tuple[Entry, ...]] = []
    for sweep in [s for s in board.family("adversarial") if s.members]:
        severity = middle(sweep)
        for label in board.order:
            found = count(board.evidence, board.run.models(label), sweep, severity, clean)
            rows += [
                (*said([NORMS.get(sweep.norm, sweep.norm), severity]), name(board, label), *x)
                for x in _lines(board, label, sweep, severity, found)
            ]
    caption = (
        "Which attack broke what, at the middle severity of each ball: samples that were right without an attack and "
        "are wrong under it, and how many of them only this attack broke. What broke a deterministic network at a "
        "smaller severity counts here too, whatever the attack itself returned. In a network that draws noise, each "
        "attack is counted on its own passes and all together as the worst case is, so that the counts need not add up."
    )
    return Table("fooled", caption, columns, tuple(rows))


def _lines(board: Board, label: str, sweep: Sweep, severity: str, found: Count) -> list[tuple[Entry, ...]]:
    """Return a line for each attack and one for all of them together."""
    place, lines = sweep.places()[severity], []
    for member in sweep.members:
        own = next((s for s, at in member.places().items() if at == place), None)
        measure = board.at(member, own or severity)
        accuracy = (
            estimated(board.estimate(label, measure), measure) if own else Entry("-", note="not at this severity")
        )
        tally = found.by_attack.get(member.shift)
        counts = (*tally, found.samples) if tally else (None, None, None)
        knows = member.knowledge.replace("_", " ") or "-"
        lines.append((*said([member.shift, knows]), accuracy, *_counts(counts)))
    measure = board.at(sweep, severity)
    everything = said([f"all {plural(len(sweep.members), 'attack')}", "-"])
    total = estimated(board.estimate(label, measure), measure)
    shared = (found.together, None, found.samples) if found.networks else (None, None, None)
    return [*lines, (*everything, total, *_counts(shared))]


def _counts(counts: Sequence[int | None]) -> list[Entry]:
    return [Entry("-") if n is None else Entry(f"{n:,}", value=n) for n in counts]
