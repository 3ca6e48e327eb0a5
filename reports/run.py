"""Everything that the files of one run say, read once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ..results.store import Store, StoreError

Document = dict[str, Any]


class Model(NamedTuple):
    """One trained network."""

    label: str
    """Its row of the board."""
    fold: int
    """Its fold of the task."""
    seed: int
    """Its training seed."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was planned and what came of it."""

    store: Store
    """Where the files lie."""
    plan: Document
    """Contents of `run.json`."""
    cells: Mapping[str, Document]
    """The planned cells that are done, by key."""
    swapped: Mapping[str, Document]
    """The planned cells of mechanism swaps that are done, by key."""
    damaged: Mapping[str, str]
    """Why planned cells that are there could not be read, by key."""
    attempts: Mapping[str, list[Document]]
    """Attempts that failed, by key of the cell, the training or the calibration."""
    strangers: int
    """Cells in the folder that the plan does not ask for."""

    @property
    def protocol(self) -> Document:
        """The resolved protocol."""
        return self.plan.get("protocol") or {}

    @property
    def rows(self) -> list[Document]:
        """Rows of the board, in the plan's order."""
        return self.plan.get("rows") or []

    @property
    def tracks(self) -> list[str]:
        """Recipes that rows were trained with, the first is that of the main board; one unnamed track where none is."""
        return list(dict.fromkeys(track(row) for row in self.rows)) or [""]

    @property
    def planned(self) -> list[Document]:
        """Planned cells, in the plan's order."""
        return self.plan.get("cells") or []

    @property
    def swaps(self) -> list[Document]:
        """Planned cells of mechanism swaps, in the plan's order."""
        return self.plan.get("swaps") or []

    @property
    def inapplicable(self) -> list[Document]:
        """What was not planned since it makes no sense: `label` and `reason`."""
        return self.plan.get("not_applicable") or []

    @property
    def given(self) -> list[Document]:
        """Weights that the user gave for networks of rows that are on the board."""
        labels = {row["label"] for row in self.rows}
        return [weights for weights in self.plan.get("weights") or [] if weights["row"] in labels]

    @property
    def confidence(self) -> float:
        """Confidence of every interval."""
        return float((self.protocol.get("statistics") or {}).get("confidence") or 0.95)

    def declarations(self, kind: str) -> Document:
        """Return the declarations of a kind, by name."""
        return (self.plan.get("declarations") or {}).get(kind) or {}

    def declared(self, kind: str, name: str) -> Document:
        """Return one declaration, empty where there is none; settings in the name do not count."""
        declarations = self.declarations(kind)
        return declarations.get(name) or declarations.get(name.partition("(")[0]) or {}

    def models(self, label: str) -> list[Model]:
        """Return the planned networks of a row, by fold and seed."""
        named = [*(self.plan.get("models") or []), *self.planned]
        found = {Model(label, int(m["fold"]), int(m["training_seed"])) for m in named if m["label"] == label}
        return sorted(found)

    def facts(self, cell: Document) -> Document:
        """Return the facts of a planned cell, empty where it is not done."""
        return (self.cells.get(cell["key"]) or {}).get("facts") or {}

    def why_missing(self, cell: Document) -> str:
        """Return why a planned cell has no result."""
        key = cell["key"]
        if key in self.damaged:
            return self.damaged[key]
        if self.attempts.get(key):
            return f"failed: {self.attempts[key][-1].get('reason') or 'no reason given'}"
        if self.attempts.get(cell.get("model", "")):
            return (
                f"blocked: its network has none ({self.attempts[cell['model']][-1].get('reason') or 'no reason given'})"
            )
        return "not run yet"

    def why_unplanned(self, label: str, shift: str) -> str:
        """Return why a shift was not planned for a row."""
        said = (entry.get("reason") for entry in self.inapplicable if entry.get("label") == f"{shift} on {label}")
        reason = next((reason for reason in said if reason), "")
        return f"not applicable: {reason}" if reason else "not part of the plan"

    def outcomes(self, key: str) -> pa.Table | None:
        """Read a cell's outcomes by sample; None where it has none."""
        return self.store.outcomes(key) if self.cells[key]["outcomes"] else None

    def mixed(self) -> list[Model]:
        """Return the networks whose cells were measured on different weights."""
        found: dict[Model, set[str]] = {}
        for planned in self.planned:
            if planned["key"] in self.cells:
                model = Model(planned["label"], int(planned["fold"]), int(planned["training_seed"]))
                weights = self.cells[planned["key"]]["facts"].get("weights_sha256")
                found.setdefault(model, set()).add(str(weights))
        return [model for model, weights in found.items() if len(weights) > 1]


def track(row: Document) -> str:
    """Return the recipe that a row was trained with, empty in runs that know one recipe only."""
    return str(row.get("track") or "")


def load(folder: Path) -> Run:
    """Read a run, or raise StoreError where there is none."""
    store = Store(folder)
    plan = store.run()
    wanted = {cell["key"] for cell in plan.get("cells") or []}
    present = store.keys()
    swaps = {cell["key"] for cell in plan.get("swaps") or []}
    cells: dict[str, Document] = {}
    swapped: dict[str, Document] = {}
    damaged: dict[str, str] = {}
    for key in present:
        if key in wanted or key in swaps:
            try:
                (cells if key in wanted else swapped)[key] = store.examine(key)
            except StoreError as error:
                damaged[key] = str(error).replace(f"{folder}/", "")
    tried = sorted(path.name for path in (folder / "attempts").glob("*") if path.is_dir())
    attempts = {key: store.attempts(key) for key in tried}
    return Run(store, plan, cells, swapped, damaged, attempts, len(set(present) - wanted - swaps))
