"""The cells that a network is measured in: its costs, its shifts, and the examination of its adversarial numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attacks.shift import Shift, severity_value
from ..attacks.version import DRAW_VERSION, TRUST_VERSION
from ..metrics.metric import Metric
from ..models.variant import Variant
from .catalog import Entry
from .key import key_of, plain
from .node import Node, Row
from .version import EVALUATION_VERSION

if TYPE_CHECKING:
    from .graph import Graph

TRUST = "trust"
"""Name and family of the cells that examine adversarial numbers."""
BALLS = ("linf", "l2")
"""Balls that are examined."""
UNITS = {"linf": "eps (L-inf, pixels)", "l2": "eps (L2, pixels)"}
"""Unit of an eps by its ball."""
AA_SEED = 1000
"""Added to a training seed to get its A/A twin's."""


class Measured(NamedTuple):
    """What a cell is measured on: a network, perhaps with another attention on its weights."""

    row: Row
    """Its row."""
    model: Node
    """Its training."""
    specification: Mapping[str, Any]
    """Everything that can change its answers."""
    variant: Variant
    """Its attention."""
    swap: str = ""
    """Label of the row whose attention works on these weights."""
    control: bool = False
    """Whether it is the control of that swap."""


def add_cells(graph: "Graph", row: Row, model: Node) -> None:
    """Add the cells of a network, and one for its costs."""
    own = Measured(row, model, model.specification, row.variant.value)
    add_shifted(graph, own)
    if graph.costs:
        node = Terms("cost", "cost", {"name": "cost"}, graph.costs)
        _add(graph, own, node)
    for norm in BALLS:
        if ladder := ladder_of(graph.shifts, norm):
            _add_trust(graph, own, norm, ladder)


def add_shifted(graph: "Graph", measured: Measured) -> None:
    """Add the cells of what is measured: one a ladder, one a severity elsewhere; note what is not applicable."""
    for entry, severities in graph.shifts:
        shift = entry.value
        reason = why_unsuited(entry, measured.variant)
        if reason:
            graph.unfit[f"{entry.label} on {measured.row.label}", reason] = None
            continue
        sources = _sources(graph, measured, str(entry.settings["sources"])) if shift.knowledge == "transfer" else []
        rungs = [severities] if shift.ladder or len(severities) == 1 else [(s,) for s in severities]
        for chosen in rungs:
            _add(graph, measured, _terms(entry, chosen, graph.metrics), sources)


def why_unsuited(entry: Entry[Shift], variant: Variant) -> str:
    """Return why a shift makes no sense on a variant, an empty string where it does."""
    here = [f"{name}={value}" for name, value in entry.settings.items()]
    required = {entry.value.requires, *(entry.value.requires_where.get(setting, "") for setting in here)} - {""}
    if "attention_logits" in required and not variant.logits:
        return "it has no attention logits to attack"
    if required and variant.builds == "network":
        return f"a network of its own does not show its {' and '.join(sorted(required)).replace('_', ' ')}"
    return ""


def ball(entry: Entry[Shift]) -> str:
    """Return the norm of the ball that a shift keeps to."""
    return str(entry.settings.get("norm", entry.value.norm))


def in_pixels(entry: Entry[Shift]) -> bool:
    """Whether a shift's severities say by how much any pixel may change; conventions have units of their own."""
    return entry.value.family == "adversarial" and ball(entry) == "linf" and not entry.value.convention


def unit_of(entry: Entry[Shift]) -> str:
    """Return the unit of a shift's severities; an eps names its ball, whether or not a setting chose it."""
    return UNITS.get(ball(entry), entry.value.unit) if entry.value.unit.endswith("eps (pixels)") else entry.value.unit


def ladder_of(shifts: Iterable[tuple[Entry[Shift], Sequence[str]]], norm: str) -> tuple[str, ...]:
    """Return all severities at which adversarial shifts attack in a ball, rising; conventions do not count."""
    found: dict[float, str] = {}
    for entry, severities in shifts:
        shift = entry.value
        same = shift.family == "adversarial" and not shift.convention and shift.ladder
        if same and ball(entry) == norm:
            found.update({severity_value(s): s for s in severities if s != "unbounded"})
    return tuple(found[value] for value in sorted(found) if value > 0)


class Terms(NamedTuple):
    """What is measured in a cell, and under which shift."""

    label: str
    """Of the shift."""
    family: str
    """Of the shift."""
    identity: Mapping[str, Any]
    """What enters the key."""
    metrics: Iterable[Entry[Metric]]
    """What is measured."""
    severities: tuple[str, ...] = ()
    """How hard."""
    unit: str = ""
    """Of the severities."""
    norm: str = ""
    """Ball."""
    knowledge: str = ""
    """What the shift knows."""
    convention: str = ""
    """Whose way it is."""
    minimum_norm: bool = False
    """Whether the smallest perturbation is looked for."""


def _terms(entry: Entry[Shift], severities: tuple[str, ...], metrics: Iterable[Entry[Metric]]) -> Terms:
    shift = entry.value
    return Terms(
        entry.label,
        shift.family,
        entry.identity,
        metrics,
        severities,
        unit_of(entry),
        ball(entry),
        shift.knowledge,
        shift.convention,
        shift.minimum_norm,
    )


def _add_trust(graph: "Graph", measured: Measured, norm: str, ladder: tuple[str, ...]) -> None:
    """Add the cell that examines a network's adversarial numbers in one ball; another network lends points to it."""
    if not graph.protocol.trust:
        return
    identity = {"name": TRUST, "norm": norm, "samples": graph.protocol.trust, "version": TRUST_VERSION}
    base = graph.protocol.statistics.baseline
    own = measured.row.variant.label == base and base != graph.protocol.aa_row
    sources = [] if own or base not in graph.labels else _sources(graph, measured, base)
    _add(graph, measured, Terms(f"{TRUST}(norm={norm})", TRUST, identity, (), ladder, norm=norm), sources)


def _sources(graph: "Graph", measured: Measured, names: str) -> list[Node]:
    """Return the networks that stand in for one: the rows named, of its recipe, fold and seed.

    No network stands in for itself: where it is named, its twin from another seed does.
    """
    model, recipe = measured.model, measured.row.recipe
    found = []
    for name in names.split("+"):
        entry = graph.catalog.variant(name)
        for offset in (0, AA_SEED):
            if entry.value.builds == "network":
                break
            node = graph.train(
                graph.title(entry.label + (" (A/A)" if offset else ""), recipe),
                entry,
                recipe,
                model.fold,
                model.training_seed - measured.row.seed_offset + offset,
            )
            if node.key != model.key:
                found.append(node)
                break
    return found


def _add(graph: "Graph", measured: Measured, terms: Terms, sources: Sequence[Node] = ()) -> None:
    noise = {"noise_seed": graph.protocol.noise_seed, "draw": DRAW_VERSION}
    specification = {
        "node": "cell",
        "model": measured.specification,
        "shift": {**terms.identity, "severities": terms.severities, **noise},
        "metrics": [metric.identity for metric in terms.metrics],
        "limit": graph.protocol.limit,
        "version": EVALUATION_VERSION,
    }
    if sources:
        specification["sources"] = [source.specification for source in sources]
    ends = (
        terms.severities[:1]
        if len(terms.severities) == 1
        else (f"{terms.severities[0]}..{terms.severities[-1]}",)
        if terms.severities
        else ()
    )
    what = " ".join((terms.label, *ends))
    if measured.swap:
        what += f" ({'as far as' if measured.control else 'with'} {measured.swap})"
    model = measured.model
    graph.add(
        Node(
            kind="cell",
            key=key_of(specification),
            specification=plain(specification),
            label=model.label,
            what=what,
            model=model.key,
            fold=model.fold,
            training_seed=model.training_seed,
            needs=(model.key, *(source.key for source in sources)),
            shift=terms.label,
            family=terms.family,
            severities=terms.severities,
            unit=terms.unit,
            swap=measured.swap,
            norm=terms.norm,
            knowledge=terms.knowledge,
            convention=terms.convention,
            minimum_norm=terms.minimum_norm,
            apart=bool(sources),
            control=measured.control,
        )
    )
