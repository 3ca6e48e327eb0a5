"""Grows the graph of a protocol: for each row, fold and seed a network, what it needs, and its cells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..attacks.shift import Shift, severity_value
from ..attacks.version import DRAW_VERSION
from ..metrics.metric import Metric
from ..models.variant import Variant
from ..models.version import VERSION as BACKBONE_VERSION
from .catalog import Catalog, Entry
from .error import BadProtocol
from .key import key_of, plain
from .protocol import Protocol
from .task import Task
from .version import EVALUATION_VERSION, TRAINING_VERSION

AA_SEED = 1000
"""Added to a training seed to get its A/A twin's."""


class Row(NamedTuple):
    """One line of the board."""

    label: str
    """Unique name."""
    variant: Entry[Variant]
    """What it is."""
    role: Literal["variant", "control", "a/a"]
    """Why it is there."""
    seed_offset: int
    """Added to the protocol's training seeds."""


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work."""

    kind: Literal["train", "calibrate", "cell"]
    """What is done."""
    key: str
    """sha256 of the specification."""
    specification: Mapping[str, Any]
    """Everything that can change its numbers, and nothing else."""
    label: str
    """Row that it belongs to."""
    what: str
    """What it is, in a few words."""
    model: str
    """Key of the training that it belongs to: nodes of one model form a group."""
    fold: int
    """Fold of the task."""
    training_seed: int
    """Seed of the training."""
    needs: tuple[str, ...] = ()
    """Keys of the nodes that must be done before."""
    shift: str = ""
    """Label of the shift, for cells; `cost` for costs."""
    family: str = ""
    """Family of the shift, for cells."""
    severities: tuple[str, ...] = ()
    """Severities, for cells."""
    unit: str = ""
    """Unit of the severities, for cells."""


class Graph:
    """The nodes of a plan, each once, dependencies before dependants."""

    def __init__(self, protocol: Protocol, catalog: Catalog) -> None:
        self.protocol = protocol
        self.catalog = catalog
        self.task = self._one("task", protocol.task)
        self.recipe = self._one("recipe", protocol.recipe)
        self.metrics = [self._one("metric", name) for name in protocol.metrics]
        self.costs = [self._one("metric", name) for name in protocol.costs]
        self.shifts = [self._shift("clean", ())] + [
            self._shift(line.shift, line.severities) for line in protocol.shifts
        ]
        self.nodes: dict[str, Node] = {}
        twins = {seed + AA_SEED for seed in protocol.training_seeds} & set(protocol.training_seeds)
        if protocol.aa_row and twins:
            raise BadProtocol(
                f"training seed {min(twins)} is also that of an A/A twin, which are {AA_SEED} apart; choose other seeds"
            )
        image, patch = int(self.task.value.pixels["image"]), protocol.backbone.patch
        if image % patch:
            raise BadProtocol(f"images of {image} px cannot be cut into patches of {patch} px; choose another patch")
        bad = [fold for fold in protocol.folds if not 0 <= fold < self.task.value.folds]
        if bad:
            raise BadProtocol(
                f"fold {bad[0]} does not exist: task '{protocol.task}' has folds 0 to {self.task.value.folds - 1}"
            )

    def _one(self, kind: str, text: str) -> Entry[Any]:
        return self.catalog.entry(kind, text)

    def _shift(self, text: str, severities: tuple[str, ...]) -> tuple[Entry[Shift], tuple[str, ...]]:
        entry: Entry[Shift] = self.catalog.shift(text)
        chosen = severities or entry.value.severities
        if entry.value.ladder:
            try:
                values = [severity_value(s) for s in chosen]
            except (ValueError, ZeroDivisionError):
                values = [] if chosen == ("unbounded",) else [1.0, 0.0]
            if values != sorted(set(values)) or any(value < 0 for value in values):
                raise BadProtocol(
                    f"shift '{entry.label}': severities must be numbers from 0 that rise, got {', '.join(chosen)}"
                )
        return entry, chosen

    def model_specification(self, variant: Entry[Variant], fold: int, seed: int) -> dict[str, Any]:
        """Return everything that can change the weights of a network."""
        task: Task = self.task.value
        backbone = self.protocol.backbone.model_dump()
        pixels = {key: task.pixels[key] for key in ("image", "channels", "mean", "std")}
        specification: dict[str, Any] = {
            "node": "train",
            "variant": dict(variant.identity),
            "backbone": {**backbone, **pixels, "classes": len(task.classes), "version": BACKBONE_VERSION},
            "task": {**self.task.identity, "digest": task.digest, "fold": fold},
            "recipe": dict(self.recipe.identity),
            "training_seed": seed,
            "version": TRAINING_VERSION,
            "donor": None,
        }
        return specification

    def train(self, label: str, variant: Entry[Variant], fold: int, seed: int) -> Node:
        """Add the training of a network, and what has to be measured on its donor before."""
        specification = self.model_specification(variant, fold, seed)
        needs: tuple[str, ...] = ()
        if variant.value.measured:
            donor = self.catalog.variant(str(variant.settings["donor"]))
            if donor.value.measured:
                raise BadProtocol(f"'{variant.label}': its donor '{donor.label}' needs a donor itself; choose another")
            measured = self.calibrate(self.train(donor.label, donor, fold, seed), variant.value.measured)
            specification["donor"] = measured.specification
            needs = (measured.key,)
        key = key_of(specification)
        return self._add(Node("train", key, plain(specification), label, "train", key, fold, seed, needs))

    def calibrate(self, donor: Node, quantities: tuple[str, ...]) -> Node:
        """Add the measurement of some quantities on a trained donor."""
        specification = {
            "node": "calibrate",
            "quantities": quantities,
            "model": donor.specification,
            "version": TRAINING_VERSION,
        }
        what = f"measure {', '.join(quantities)}"
        return self._add(
            Node(
                "calibrate",
                key_of(specification),
                plain(specification),
                donor.label,
                what,
                donor.model,
                donor.fold,
                donor.training_seed,
                (donor.key,),
            )
        )

    def cells(self, model: Node) -> None:
        """Add the cells of a network: one a ladder, one a severity elsewhere, and one for its costs."""
        for entry, severities in self.shifts:
            rungs = [severities] if entry.value.ladder or len(severities) == 1 else [(s,) for s in severities]
            for chosen in rungs:
                self._cell(
                    model, entry.label, entry.value.family, chosen, entry.value.unit, entry.identity, self.metrics
                )
        if self.costs:
            self._cell(model, "cost", "cost", (), "", {"name": "cost"}, self.costs)

    def _cell(
        self,
        model: Node,
        shift: str,
        family: str,
        severities: tuple[str, ...],
        unit: str,
        identity: Mapping[str, Any],
        metrics: Iterable[Entry[Metric]],
    ) -> None:
        specification = {
            "node": "cell",
            "model": model.specification,
            "shift": {
                **identity,
                "severities": severities,
                "noise_seed": self.protocol.noise_seed,
                "draw": DRAW_VERSION,
            },
            "metrics": [metric.identity for metric in metrics],
            "limit": self.protocol.limit,
            "version": EVALUATION_VERSION,
        }
        what = (
            f"{shift} {severities[0]}" + ("" if len(severities) == 1 else f"..{severities[-1]}")
            if severities
            else shift
        )
        self._add(
            Node(
                "cell",
                key_of(specification),
                plain(specification),
                model.label,
                what,
                model.key,
                model.fold,
                model.training_seed,
                (model.key,),
                shift,
                family,
                severities,
                unit,
            )
        )

    def grow(self, rows: Iterable[Row]) -> None:
        """Add everything that some rows ask for."""
        for fold in self.protocol.folds:
            for seed in self.protocol.training_seeds:
                for row in rows:
                    self.cells(self.train(row.label, row.variant, fold, seed + row.seed_offset))

    def closure(self, labels: set[str]) -> set[str]:
        """Return the keys of the cells of some rows and of all that they need."""
        keys = {node.key for node in self.nodes.values() if node.kind == "cell" and node.label in labels}
        for node in reversed(self.nodes.values()):
            if node.key in keys:
                keys.update(node.needs)
        return keys

    def _add(self, node: Node) -> Node:
        return self.nodes.setdefault(node.key, node)
