"""Where every node of a plan stands, read from the files of the run alone."""

from collections.abc import Mapping
from typing import Literal

from ..results.store import Store, StoreError
from .key import key_of
from .node import Node
from .plan import Plan

State = Literal["cached", "known", "missing", "failed", "blocked"]
MEANING: Mapping[State, str] = {
    "cached": "done, on disk",
    "known": "not done, and nothing that is missing needs it",
    "missing": "will be done",
    "failed": "failed for good; `--retry-failed` tries again",
    "blocked": "waits for something that failed",
}
TRANSIENT_TRIES = 3
"""Attempts after which a failure that may pass counts as one that does not."""


def has_failed(store: Store, key: str) -> bool:
    """Whether the same command should leave a node alone; what the user was told to mend is always tried again."""
    attempts = [attempt for attempt in store.attempts(key) if not attempt.get("mendable")]
    return bool(attempts) and (not attempts[-1]["transient"] or len(attempts) >= TRANSIENT_TRIES)


def examine(store: Store, key: str) -> None:
    """Raise StoreError where a finished cell is not what its name says, or its outcomes are not what it says."""
    if key_of(store.examine(key)["cell"]) != key:
        path = store.cell_path(key)
        raise StoreError(f"{path} is damaged (its content has another key); delete it and run the same command again")


def states(plan: Plan, store: Store, *, retry_failed: bool = False) -> dict[str, State]:
    """Return the state of each node, in the plan's order."""
    found: dict[str, State] = {}
    for node in plan.nodes:
        if store.has(node.kind, node.key):
            found[node.key] = "cached"
            if node.kind == "cell":
                examine(store, node.key)
        elif any(found[need] in ("failed", "blocked") for need in node.needs):
            found[node.key] = "blocked"
        elif not retry_failed and has_failed(store, node.key):
            found[node.key] = "failed"
        else:
            found[node.key] = "missing"
    needed: set[str] = set()
    for node in reversed(plan.nodes):
        if found[node.key] != "cached" and (node.kind == "cell" or node.key in needed):
            needed.update(node.needs)
        elif node.kind != "cell" and node.key not in needed and found[node.key] != "cached":
            found[node.key] = "known"
    return found


def invalid_cells(plan: Plan, store: Store, known: Mapping[str, State]) -> dict[str, str]:
    """Return the finished cells that broke a law, each with the first reason."""
    found = {}
    for node in plan.nodes:
        if node.kind == "cell" and known[node.key] == "cached":
            severities = store.cell(node.key)["facts"].get("severities", ())
            reasons = [severity["reason"] for severity in severities if not severity["valid"]]
            if reasons:
                found[node.key] = reasons[0]
    return found


def kind_of_work(node: Node) -> str:
    """Return what a node's duration resembles: its training, or its shift."""
    return node.shift or node.kind


def durations(plan: Plan, store: Store, known: Mapping[str, State]) -> dict[str, float]:
    """Return the mean seconds of finished work, by kind of work."""
    seconds: dict[str, list[float]] = {}
    for node in plan.nodes:
        if known[node.key] != "cached":
            continue
        if node.kind == "cell":
            seconds.setdefault(kind_of_work(node), []).append(store.cell(node.key)["timing"]["seconds"])
        elif node.kind == "train":
            note = store.checkpoint_path(node.key).with_suffix(".json")
            if note.exists():
                seconds.setdefault("train", []).append(store.note(note)["timing"]["seconds"])
    return {kind: sum(values) / len(values) for kind, values in seconds.items()}
