"""The graph of everything that a protocol asks for: networks to train, donors to measure, cells to fill."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..models.variant import Variant, swap_fault, why_unfit
from .catalog import Catalog
from .cell_node import AA_SEED
from .error import BadProtocol, UnknownName
from .given import Given, unmatched
from .graph import Graph
from .node import Node, Role, Row
from .protocol import OURS, THEIRS, Protocol
from .selection import expanded
from .swap_node import add_swap


@dataclass(frozen=True, slots=True)
class Plan:
    """All nodes, dependencies before dependants, and what a report must know of them."""

    protocol: Protocol
    """What was asked for."""
    rows: tuple[Row, ...]
    """The board's lines, in order."""
    nodes: tuple[Node, ...]
    """The work."""
    not_applicable: tuple[tuple[str, str], ...]
    """Rows that make no sense here, each with the reason."""
    files: tuple[str, ...]
    """Files with declarations that the user named."""
    models: tuple[str, ...]
    """Networks that the user named."""
    weights: Mapping[str, str]
    """Where the weights lie that stand for a training or start one, by the digest of their file."""
    document: dict[str, Any]
    """Content of run.json."""

    def by_key(self) -> dict[str, Node]:
        """Return the nodes by their keys."""
        return {node.key: node for node in self.nodes}


def rows_of(graph: Graph, protocol: Protocol, extra: Iterable[str]) -> list[Row]:
    """Return the board's lines, track by track: the protocol's, those of the command line, and the A/A row.

    A network that the user built is trained with no recipe, so it stands in the first track alone.
    """
    catalog = graph.catalog
    names = expanded("variant", [*protocol.variants, *extra], catalog.names("variant"))
    rows: dict[str, Row] = {}
    for recipe in graph.tracks:
        for entry in map(catalog.variant, names):
            label = graph.title(entry.label, recipe)
            whole = entry.value.builds == "network"
            if not whole or recipe is graph.recipe:
                role: Role = "control" if entry.value.control_for else "variant"
                rows.setdefault(label, Row(label, entry, role, 0, recipe))
        if protocol.aa_row:
            entry = catalog.variant(protocol.aa_row)
            label = graph.title(f"{entry.label} (A/A)", recipe)
            rows[label] = Row(label, entry, "a/a", AA_SEED, recipe)
    return list(rows.values())


def _snapshot(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _snapshot(v) for k, v in ((f.name, getattr(value, f.name)) for f in fields(value))}
    if isinstance(value, Mapping):
        return {str(k): _snapshot(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_snapshot(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(getattr(value, "attribute", value))


def make_plan(
    protocol: Protocol,
    catalog: Catalog,
    extra: Iterable[str] = (),
    only: Iterable[str] = (),
    kept: Iterable[str] = (),
    has: Callable[[str, str], bool] = lambda kind, key: False,
    given: Iterable[Given] = (),
    kept_weights: Iterable[Given] = (),
) -> Plan:
    """Return everything that a protocol asks for. Neither torch nor timm is imported.

    `extra` adds rows; `only` limits the work to the rows whose label or name it lists; `kept` are rows of earlier runs
    into the same folder, which stay on the board where `has` says that any of their cells is there. `given` are weights
    that stand for a training, `kept_weights` those of kept rows.
    """
    brought = list(given)
    graph = Graph(protocol, catalog, brought)
    asked = rows_of(graph, protocol, extra)
    wanted = _wanted(asked, list(only))
    baseline = protocol.statistics.baseline if "baseline" in protocol.statistics.model_fields_set else ""
    for key, label in (("statistics.baseline", baseline), ("aa_row", protocol.aa_row)):
        if label and label not in {row.label for row in asked if row.role != "a/a"}:
            raise BadProtocol(f"{key} is '{label}', which is no row; the rows are {', '.join(r.label for r in asked)}")
    rows, unfit = [], []
    tokens = protocol.backbone.patches(int(graph.task.value.pixels["image"]))
    for row in asked:
        reason = _why_unfit(row.variant.value, protocol, tokens)
        if reason:
            unfit.append((row.label, reason))
        else:
            rows.append(row)
    graph.grow(rows)
    for pair in protocol.swaps:
        add_swap(graph, pair, rows)
    unmatched(brought, ((n.label, n.training_seed, n.fold) for n in graph.nodes.values() if n.kind == "train"))
    work = graph.closure({row.label for row in rows} & wanted)
    if not work:
        raise BadProtocol(f"no row is left to run; the rows are {', '.join(row.label for row in asked)}")
    labels = {row.label for row in asked}
    graph.give(weights for weights in kept_weights if weights.row not in labels)
    for row in rows_of(graph, protocol.model_copy(update={"variants": (), "aa_row": ""}), kept):
        if row.label not in labels:
            before = set(graph.nodes)
            graph.grow([row])
            new = {key: graph.nodes.pop(key) for key in list(graph.nodes) if key not in before}
            if any(has(node.kind, key) for key, node in new.items() if node.kind == "cell"):
                graph.nodes.update(new)
                rows.append(row)
    everything = tuple(graph.nodes.values())
    unfit.extend(graph.unfit)
    return Plan(
        protocol,
        tuple(rows),
        tuple(node for node in everything if node.key in work),
        tuple(unfit),
        tuple(catalog.files),
        tuple(catalog.models),
        graph.weight_files,
        _document(graph, rows, everything, unfit),
    )


def _why_unfit(variant: Variant, protocol: Protocol, tokens: int | None) -> str:
    """Return why a row cannot stand on this backbone; the heads of a timm model are not known before it is built."""
    if variant.builds == "network":
        return ""
    timm = protocol.backbone.timm
    heads = 0 if timm else protocol.backbone.heads
    unfit = why_unfit(variant, tokens=variant.minimum_tokens if tokens is None else tokens, heads=heads, grid=True)
    return (swap_fault(variant) if timm else "") or unfit


def _wanted(rows: Sequence[Row], only: Sequence[str]) -> set[str]:
    if not only:
        return {row.label for row in rows}
    known = [row.label for row in rows]
    names = set(expanded("row", only, known))
    unknown = names - set(known) - {row.variant.value.name for row in rows}
    if unknown:
        raise UnknownName("row", sorted(unknown)[0], known, "the rows of this protocol: " + ", ".join(known))
    return {row.label for row in rows if names & {row.label, row.variant.value.name}}


def _cell(node: Node) -> dict[str, Any]:
    return {
        "key": node.key,
        "model": node.model,
        "label": node.label,
        "fold": node.fold,
        "training_seed": node.training_seed,
        "shift": node.shift,
        "family": node.family,
        "severities": list(node.severities),
        "unit": node.unit,
        "norm": node.norm,
        "knowledge": node.knowledge,
        "convention": node.convention,
        "minimum_norm": node.minimum_norm,
    }


def _document(graph: Graph, rows: list[Row], nodes: tuple[Node, ...], unfit: list[tuple[str, str]]) -> dict[str, Any]:
    protocol = graph.protocol
    return {
        "schema": 1,
        "protocol": {
            **protocol.model_dump(mode="json"),
            "backbone": protocol.backbone.model_dump(include=THEIRS | {"weights"} if protocol.backbone.timm else OURS),
            "draft": protocol.draft,
        },
        "rows": [
            {
                "label": row.label,
                "variant": row.variant.value.name,
                "settings": dict(row.variant.settings),
                "family": row.variant.value.family,
                "role": row.role,
                "track": row.recipe.label,
                "control_for": list(row.variant.value.control_for),
                "donor": row.variant.settings.get("donor") if row.variant.value.measured else None,
            }
            for row in rows
        ],
        "models": [
            {"key": n.key, "label": n.label, "fold": n.fold, "training_seed": n.training_seed}
            for n in nodes
            if n.kind == "train"
        ],
        "cells": [_cell(n) for n in nodes if n.kind == "cell" and not n.swap],
        "swaps": [{**_cell(n), "swap": n.swap, "control": n.control} for n in nodes if n.swap],
        "weights": [weights._asdict() for weights in graph.given.values()],
        "not_applicable": [{"label": label, "reason": reason} for label, reason in unfit],
        "declarations": {
            "variants": {
                row.variant.label: {**_snapshot(row.variant.value), "settings": dict(row.variant.settings)}
                for row in rows
            },
            "shifts": {
                entry.label: {**_snapshot(entry.value), "settings": dict(entry.settings)} for entry, _ in graph.shifts
            },
            "metrics": {e.value.name: _snapshot(e.value) for e in (*graph.metrics, *graph.costs)},
            "task": _snapshot(graph.task.value),
            "recipe": {**_snapshot(graph.recipe.value), "settings": dict(graph.recipe.settings)},
            "recipes": {
                entry.label: {**_snapshot(entry.value), "settings": dict(entry.settings)} for entry in graph.tracks
            },
        },
    }
