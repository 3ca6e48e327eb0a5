"""The networks that a protocol asks for: for each row, fold and seed a training, and what has to be measured before."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..attacks.shift import Shift, severity_value
from ..models.variant import Variant
from ..models.version import VERSION as BACKBONE_VERSION
from .catalog import Catalog, Entry
from .cell_node import AA_SEED, add_cells, in_pixels
from .error import BadProtocol
from .given import Given, file_digest
from .key import key_of, plain
from .node import Node, Row
from .protocol import OURS, THEIRS, Protocol
from .recipe import Recipe
from .task import Task
from .version import TRAINING_VERSION


class Graph:
    """The nodes of a plan, each once, dependencies before dependants."""

    def __init__(self, protocol: Protocol, catalog: Catalog, given: Iterable[Given] = ()) -> None:
        self.protocol = protocol
        self.catalog = catalog
        self.given: dict[tuple[str, int, int], Given] = {}
        self.give(given)
        self.task = self._one("task", protocol.task)
        self.recipe: Entry[Recipe] = self._one("recipe", protocol.recipe)
        self.tracks = self._tracks()
        self.metrics = [self._one("metric", name) for name in protocol.metrics]
        self.costs = [self._one("metric", name) for name in protocol.costs]
        self.shifts = [self._shift("clean", ())] + [
            self._shift(line.shift, line.severities) for line in protocol.shifts
        ]
        self.nodes: dict[str, Node] = {}
        self.labels: set[str] = set()
        self.unfit: dict[tuple[str, str], None] = {}
        twins = {seed + AA_SEED for seed in protocol.training_seeds} & set(protocol.training_seeds)
        if protocol.aa_row and twins:
            raise BadProtocol(
                f"training seed {min(twins)} is also that of an A/A twin, which are {AA_SEED} apart; choose other seeds"
            )
        try:
            protocol.backbone.patches(int(self.task.value.pixels["image"]))
        except ValueError as error:
            raise BadProtocol(str(error)) from None
        self.start = file_digest(protocol.backbone.weights) if protocol.backbone.weights else ""
        bad = [fold for fold in protocol.folds if not 0 <= fold < self.task.value.folds]
        if bad:
            raise BadProtocol(
                f"fold {bad[0]} does not exist: task '{protocol.task}' has folds 0 to {self.task.value.folds - 1}"
            )

    def give(self, given: Iterable[Given]) -> None:
        """Take in weights that stand for a training."""
        self.given.update({(weights.row, weights.seed, weights.fold): weights for weights in given})

    @property
    def weight_files(self) -> dict[str, str]:
        """Where the weights lie that are given or that a timm model starts from, by the digest of their file."""
        found = {weights.sha256: weights.path for weights in self.given.values()}
        return found | ({self.start: str(Path(self.protocol.backbone.weights).resolve())} if self.start else {})

    def _one(self, kind: str, text: str) -> Entry[Any]:
        return self.catalog.entry(kind, text)

    def _tracks(self) -> list[Entry[Recipe]]:
        """Return the recipes that rows are trained with, each once, the protocol's own in front."""
        found = [self.recipe]
        for name in self.protocol.tracks:
            entry = self._one("recipe", name)
            if entry.label == self.recipe.label:
                raise BadProtocol(f"the track '{name}' is the protocol's own recipe; leave it out")
            if entry.label in [other.label for other in found]:
                raise BadProtocol(f"the track '{name}' is named twice; leave one out")
            found.append(entry)
        return found

    def _shift(self, text: str, severities: tuple[str, ...]) -> tuple[Entry[Shift], tuple[str, ...]]:
        entry: Entry[Shift] = self.catalog.shift(text)
        chosen = severities or entry.value.severities
        if entry.value.ladder:
            try:
                values = [severity_value(s) for s in chosen]
            except ValueError:
                values = [] if chosen == ("unbounded",) else [1.0, 0.0]
            if values != sorted(set(values)) or any(value < 0 for value in values):
                raise BadProtocol(
                    f"shift '{entry.label}': severities must be numbers from 0 that rise, got {', '.join(chosen)}"
                )
            if in_pixels(entry) and (fault := _outside(chosen, values)):
                raise BadProtocol(f"shift '{entry.label}': {fault}")
        return entry, chosen

    def title(self, label: str, recipe: Entry[Recipe]) -> str:
        """Return the name of a row trained with a recipe: the label alone in the first track."""
        return label if recipe.label == self.recipe.label else f"{label}+{recipe.label}"

    def model_specification(
        self, variant: Entry[Variant], recipe: Entry[Recipe], fold: int, seed: int, weights: str = ""
    ) -> dict[str, Any]:
        """Return everything that can change the weights of a network; `weights` is the digest of a file that is given.

        A network that the user built stands for itself: neither backbone nor recipe nor seed enters.
        """
        whole = variant.value.builds == "network"
        task: Task = self.task.value
        specification: dict[str, Any] = {
            "node": "train",
            "variant": dict(variant.identity),
            "backbone": None if whole else self._backbone(),
            "task": {**self.task.identity, "digest": task.digest, "fold": fold},
            "recipe": None if whole or weights else dict(recipe.identity),
            "training_seed": seed,
            "version": TRAINING_VERSION,
            "donor": None,
        }
        if weights:
            specification["weights"] = weights
        if variant.value.parameters_of:
            donor = self.catalog.variant(str(variant.settings[variant.value.parameters_of]))
            if donor.value.measured or donor.value.parameters_of or donor.value.builds == "network":
                raise BadProtocol(
                    f"'{variant.label}': the parameters of '{donor.label}' cannot be matched before it is trained; "
                    "choose a donor that is neither measured nor matched nor a network of its own"
                )
            specification["like"] = dict(donor.identity)
        return specification

    def _backbone(self) -> dict[str, Any]:
        """Return everything about the backbone that can change a number."""
        task: Task = self.task.value
        chosen = self.protocol.backbone
        pixels = {key: task.pixels[key] for key in ("image", "channels", "mean", "std")}
        common = {**pixels, "classes": len(task.classes), "version": BACKBONE_VERSION}
        if not chosen.timm:
            return {**chosen.model_dump(include=OURS), **common}
        return {**chosen.model_dump(include=THEIRS), "start": self.start, **common}

    def train(self, label: str, variant: Entry[Variant], recipe: Entry[Recipe], fold: int, seed: int) -> Node:
        """Add the training of a network, and what has to be measured on its donor before."""
        given = self.given.get((label, seed, fold))
        specification = self.model_specification(variant, recipe, fold, seed, given.sha256 if given else "")
        needs: tuple[str, ...] = ()
        if variant.value.measured:
            donor = self.catalog.variant(str(variant.settings["donor"]))
            if donor.value.measured or not donor.value.logits:
                raise BadProtocol(
                    f"'{variant.label}': its donor '{donor.label}' needs a donor itself or has no logits to match; "
                    "choose a donor of the form softmax(logits) v"
                )
            trained = self.train(self.title(donor.label, recipe), donor, recipe, fold, seed)
            measured = self.calibrate(trained, variant.value.measured)
            specification["donor"] = measured.specification
            needs = (measured.key,)
        key = key_of(specification)
        return self.add(Node("train", key, plain(specification), label, "train", key, fold, seed, needs))

    def calibrate(self, donor: Node, quantities: tuple[str, ...]) -> Node:
        """Add the measurement of some quantities on a trained donor."""
        specification = {
            "node": "calibrate",
            "quantities": quantities,
            "model": donor.specification,
            "version": TRAINING_VERSION,
        }
        what = f"measure {', '.join(quantities)}"
        return self.add(
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

    def grow(self, rows: Sequence[Row]) -> None:
        """Add everything that some rows ask for."""
        self.labels.update(row.label for row in rows)
        for fold in self.protocol.folds:
            for turn in range(len(self.protocol.training_seeds)):
                for row in rows:
                    for seed in row.seeds(self.protocol.training_seeds)[turn : turn + 1]:
                        add_cells(self, row, self.train(row.label, row.variant, row.recipe, fold, seed))

    def closure(self, labels: set[str]) -> set[str]:
        """Return the keys of the cells of some rows and of all that they need."""
        keys = {node.key for node in self.nodes.values() if node.kind == "cell" and node.label in labels}
        for node in reversed(self.nodes.values()):
            if node.key in keys:
                keys.update(node.needs)
        return keys

    def add(self, node: Node) -> Node:
        """Add a node and return it, or the one that is there already."""
        return self.nodes.setdefault(node.key, node)


def _outside(severities: Sequence[str], values: Sequence[float]) -> str:
    """Return what is wrong with an eps at which every image is reached already, empty where there is none."""
    for text, value in zip(severities, values, strict=False):
        if value > 1:
            hint = f"; did you mean {value:.0f}/255?" if value.is_integer() and value <= 255 else ""
            return f"eps is in pixels from 0 to 1, got {text}{hint}"
    return ""
