"""How far the adversarial numbers of each row can be believed, ball by ball, over all its networks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .cross import CONTINUOUS, cross_gates
from .gate import Gate, Terms
from .measure import Evidence
from .run import Document, Model, Run
from .sweep import TRUST, Part, Sweep
from .trust import gates, too_few, verdict

NOT_EXAMINED = "not examined"
"""The word for a row that no cell examined and no gate between cells speaks against."""
KNOWN = ("white_box", "black_box", "transfer")
"""Kinds of knowledge that gates ask for; an attack that says nothing is doubted like one with the gradients."""
UNBOUNDED = "unbounded_attack_fails"
"""Gate that says whether an attack without bounds fools a network."""


class Doubt(NamedTuple):
    """What speaks against a number."""

    reason: str = ""
    """What the gates found; empty where nothing speaks against it."""
    broken: bool = False
    """Whether the number means nothing, and is shown but never compared."""

    @property
    def word(self) -> str:
        """`broken`, `suspect`, or nothing."""
        return "" if not self.reason else "broken" if self.broken else "suspect"

    def worse(self, other: "Doubt") -> "Doubt":
        """Return the worse of two, or both where they are alike."""
        if self.broken != other.broken:
            return self if self.broken else other
        return Doubt("; ".join(dict.fromkeys(x for x in (self.reason, other.reason) if x)), self.broken)


class Spoken(NamedTuple):
    """One gate over the networks of a row."""

    gate: Gate
    """The network where it is worst."""
    networks: int
    """Networks in which it is raised."""


class Credence(NamedTuple):
    """What is known about the adversarial numbers of a row in one ball."""

    spoken: tuple[Spoken, ...]
    """Every gate that applies, the raised ones first."""
    examined: int
    """Networks that a cell examined."""
    networks: int
    """Networks of the row."""
    reason: str = ""
    """Why networks were not examined."""
    few: str = ""
    """How few samples a network gets right where that is too few to trust any number of the row."""

    @property
    def raised(self) -> list[Spoken]:
        """The gates that speak against numbers of the row."""
        return [spoken for spoken in self.spoken if spoken.networks]

    @property
    def word(self) -> str:
        """What the gates come to for attacks with the model's gradients, or that nobody looked."""
        doubt = self.doubt("white_box")
        return doubt.word or ("trusted" if self.examined and not self.few else NOT_EXAMINED)

    def doubt(self, knowledge: str, foreign: bool = False) -> Doubt:
        """Return what speaks against the numbers of attacks with this knowledge; see `trust.verdict` for `foreign`."""
        known = knowledge if knowledge in KNOWN else "white_box"
        found = verdict([spoken.gate for spoken in self.raised], knowledge=known, foreign=foreign)
        more = len(found.reasons) - 1
        first = "".join(found.reasons[:1])
        return Doubt(first + (f" (and {more} more under Trust)" if more > 0 else ""), found.word == "broken")


def merged(by_network: Iterable[Iterable[Gate]]) -> tuple[Spoken, ...]:
    """Return each gate that applies with the network where it is worst, the broken first, then the suspect."""
    order = ("broken", "suspect", "ok")
    worst: dict[str, Gate] = {}
    raised: Counter[str] = Counter()
    for network in by_network:
        for gate in network:
            if gate.verdict in order:
                known = worst.setdefault(gate.name, gate)
                raised[gate.name] += gate.verdict != "ok"
                if order.index(gate.verdict) < order.index(known.verdict):
                    worst[gate.name] = gate
    found = [Spoken(gate, raised[name]) for name, gate in worst.items()]
    return tuple(sorted(found, key=lambda spoken: order.index(spoken.gate.verdict)))


def balls(sweeps: Iterable[Sweep]) -> list[str]:
    """Return the norms of the adversarial shifts, conventions left out, in the plan's order."""
    found = (s.norm for s in sweeps if s.family == "adversarial" and not s.convention)
    return list(dict.fromkeys(found))


def credences(
    run: Run, evidence: Evidence, sweeps: Sequence[Sweep], worst: Sequence[Sweep], clean: Sequence[Part]
) -> dict[tuple[str, str], Credence]:
    """Return what is known of every row in every ball that is attacked or examined.

    The chance at which a sound network trips a gate is shared between a row's networks, so that a row with many is
    suspected no sooner than a row with one.
    """
    cells = examinations(run)
    norms = list(dict.fromkeys([*balls(sweeps), *(norm for _, norm in cells)]))
    found = {}
    for row in run.rows:
        models = run.models(row["label"])
        terms = Terms(level=Terms().level / max(len(models), 1))
        for norm in norms:
            own = {model: _examined(run, cells.get((model, norm)), terms) for model in models}
            known = {model: x for model, x in own.items() if x is not None}
            between = [
                cross_gates(evidence, model, norm, [*sweeps, *worst], clean, _unbounded(known.get(model)), terms)
                for model in models
            ]
            every = [[*known.get(model, ()), *gates] for model, gates in zip(models, between, strict=True)]
            missing = [cells[m, norm] for m in models if (m, norm) in cells and m not in known]
            why = next((run.why_missing(cell) for cell in missing if cell["key"] not in run.cells), "")
            why = why or ("" if known else unasked(run, norm))
            few = next((x for model in known if (x := too_few(run.facts(cells[model, norm])["trust"]))), "")
            found[row["label"], norm] = Credence(merged(every), len(known), len(models), why, few)
    return found


def examinations(run: Run) -> dict[tuple[Model, str], Document]:
    """Return the planned cells that examine adversarial numbers, by network and norm."""
    found = {}
    for cell in run.planned:
        if cell["family"] == TRUST:
            norm = cell.get("norm") or str(cell["shift"]).partition("norm=")[2].rstrip(")")
            found[Model(cell["label"], int(cell["fold"]), int(cell["training_seed"])), norm] = cell
    return found


def _examined(run: Run, cell: Document | None, terms: Terms) -> list[Gate] | None:
    """Return the gates of one network's examination; None where there is none."""
    facts = run.facts(cell).get("trust") if cell else None
    return gates(facts, terms) if isinstance(facts, Mapping) and facts.get("measured") else None


def unasked(run: Run, norm: str) -> str:
    """Return why nobody examined a ball; empty where the plan asked for it, or says nothing."""
    if norm and norm not in CONTINUOUS:
        return "only balls of pixels, L-inf and L2, are examined"
    return "the protocol asks for none: trust = 0" if run.protocol.get("trust") == 0 else ""


def _unbounded(found: Sequence[Gate] | None) -> Gate | None:
    return next((gate for gate in found or () if gate.name == UNBOUNDED), None)
