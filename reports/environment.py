"""Where and when the numbers of a run came about; several environments are told apart."""

from dataclasses import dataclass

from .run import Run


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment and the cells that it produced."""

    cells: int
    """Number of cells."""
    first: str
    """When the first was begun."""
    last: str
    """When the last was begun."""
    facts: tuple[tuple[str, str], ...]
    """What it was, name by name."""


def environments(run: Run) -> list[Environment]:
    """Return the environments of a run, that of most cells first."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for document in run.cells.values():
        facts = dict(document.get("provenance") or {})
        started = str(facts.pop("started", "") or "")
        packages = facts.pop("packages", {}) or {}
        facts |= {"packages": ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))}
        shown = tuple(
            (name.replace("_", " "), str(value) if value != "" else "-") for name, value in sorted(facts.items())
        )
        found.setdefault(shown, []).append(started)
    listed = [Environment(len(times), min(times) or "-", max(times) or "-", facts) for facts, times in found.items()]
    return sorted(listed, key=lambda environment: (-environment.cells, environment.facts))


def differing(environments: list[Environment]) -> list[str]:
    """Return the facts in which environments differ."""
    values: dict[str, set[str]] = {}
    for environment in environments:
        for name, value in environment.facts:
            values.setdefault(name, set()).add(value)
    return [name for name, known in values.items() if len(known) > 1]
