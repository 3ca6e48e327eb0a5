"""The graph of everything that a protocol asks for: networks to train, donors to measure, cells to fill."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from .catalog import Catalog
from .error import BadProtocol, UnknownName
from .graph import AA_SEED, Graph, Node, Row
from .protocol import Protocol
from .selection import expanded


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
    document: dict[str, Any]
    """Content of run.json."""

    def by_key(self) -> dict[str, Node]:
        """Return the nodes by their keys."""
        return {node.key: node for node in self.nodes}


def rows_of(protocol: Protocol, catalog: Catalog, extra: Iterable[str]) -> list[Row]:
    """Return the board's lines: the protocol's, those added on the command line, and the A/A row."""
    names = expanded("variant", [*protocol.variants, *extra], catalog.names("variant"))
    rows: dict[str, Row] = {}
    for name in names:
        entry = catalog.variant(name)
        rows.setdefault(entry.label, Row(entry.label, entry, "control" if entry.value.control_for else "variant", 0))
    if protocol.aa_row:
        entry = catalog.variant(protocol.aa_row)
        label = f"{entry.label} (A/A)"
        rows[label] = Row(label, entry, "a/a", AA_SEED)
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
) -> Plan:
    """Return everything that a protocol asks for. Neither torch nor timm is imported.

    `extra` adds rows; `only` limits the work to the rows whose label or name it lists; `kept` are rows of earlier runs
    into the same folder, which stay on the board where `has` says that any of their cells is there.
    """
    graph = Graph(protocol, catalog)
    asked = rows_of(protocol, catalog, extra)
    wanted = _wanted(asked, list(only))
    given = protocol.statistics.baseline if "baseline" in protocol.statistics.model_fields_set else ""
    for key, label in (("statistics.baseline", given), ("aa_row", protocol.aa_row)):
        if label and label not in {row.label for row in asked if row.role != "a/a"}:
            raise BadProtocol(f"{key} is '{label}', which is no row; the rows are {', '.join(r.label for r in asked)}")
    rows, unfit = [], []
    tokens = (graph.task.value.pixels["image"] // protocol.backbone.patch) ** 2
    for row in asked:
        if tokens < row.variant.value.minimum_tokens:
            unfit.append((row.label, f"needs {row.variant.value.minimum_tokens} tokens, there are {tokens}"))
        else:
            rows.append(row)
    graph.grow(rows)
    work = graph.closure({row.label for row in rows} & wanted)
    if not work:
        raise BadProtocol(f"no row is left to run; the rows are {', '.join(row.label for row in asked)}")
    labels = {row.label for row in asked}
    for row in rows_of(protocol.model_copy(update={"variants": (), "aa_row": ""}), catalog, kept):
        if row.label not in labels:
            before = set(graph.nodes)
            graph.grow([row])
            new = {key: graph.nodes.pop(key) for key in list(graph.nodes) if key not in before}
            if any(has(node.kind, key) for key, node in new.items() if node.kind == "cell"):
                graph.nodes.update(new)
                rows.append(row)
    everything = tuple(graph.nodes.values())
    return Plan(
        protocol,
        tuple(rows),
        tuple(node for node in everything if node.key in work),
        tuple(unfit),
        tuple(catalog.files),
        _document(graph, rows, everything, unfit),
    )


def _wanted(rows: Sequence[Row], only: Sequence[str]) -> set[str]:
    if not only:
        return {row.label for row in rows}
    known = [row.label for row in rows]
    names = set(expanded("row", only, known))
    unknown = names - set(known) - {row.variant.value.name for row in rows}
    if unknown:
        raise UnknownName("row", sorted(unknown)[0], known, "the rows of this protocol: " + ", ".join(known))
    return {row.label for row in rows if names & {row.label, row.variant.value.name}}


def _document(graph: Graph, rows: list[Row], nodes: tuple[Node, ...], unfit: list[tuple[str, str]]) -> dict[str, Any]:
    protocol = graph.protocol
    return {
        "schema": 1,
        "protocol": {**protocol.model_dump(mode="json"), "draft": protocol.draft},
        "rows": [
            {
                "label": row.label,
                "variant": row.variant.value.name,
                "settings": dict(row.variant.settings),
                "family": row.variant.value.family,
                "role": row.role,
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
        "cells": [
            {
                "key": n.key,
                "model": n.model,
                "label": n.label,
                "fold": n.fold,
                "training_seed": n.training_seed,
                "shift": n.shift,
                "family": n.family,
                "severities": list(n.severities),
                "unit": n.unit,
            }
            for n in nodes
            if n.kind == "cell"
        ],
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
        },
    }
