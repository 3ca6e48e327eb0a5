"""Grows the graph of a protocol: for each row, fold and seed a network, what it needs, and its cells."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..attacks.shift import Shift, severity_value
from ..attacks.version import DRAW_VERSION
from ..metrics.metric import Metric
from ..models.variant import Variant
from ..models.version import VERSION as BACKBONE_VERSION
from .catalog import Catalog, Entry
from .error import BadProtocol
from .given import Given, file_digest
from .key import key_of, plain
from .node import Node, Row
from .protocol import OURS, THEIRS, Protocol
from .task import Task
from .version import EVALUATION_VERSION, SWAP_VERSION, TRAINING_VERSION

AA_SEED = 1000
"""Added to a training seed to get its A/A twin's."""


class Graph:
    """The nodes of a plan, each once, dependencies before dependants."""

    def __init__(self, protocol: Protocol, catalog: Catalog, given: Iterable[Given] = ()) -> None:
        self.protocol = protocol
        self.catalog = catalog
        self.given: dict[tuple[str, int, int], Given] = {}
        self.give(given)
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

    def model_specification(self, variant: Entry[Variant], fold: int, seed: int, weights: str = "") -> dict[str, Any]:
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
            "recipe": None if whole or weights else dict(self.recipe.identity),
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

    def train(self, label: str, variant: Entry[Variant], fold: int, seed: int) -> Node:
        """Add the training of a network, and what has to be measured on its donor before."""
        given = self.given.get((label, seed, fold))
        specification = self.model_specification(variant, fold, seed, given.sha256 if given else "")
        needs: tuple[str, ...] = ()
        if variant.value.measured:
            donor = self.catalog.variant(str(variant.settings["donor"]))
            if donor.value.measured or not donor.value.logits:
                raise BadProtocol(
                    f"'{variant.label}': its donor '{donor.label}' needs a donor itself or has no logits to match; "
                    "choose a donor of the form softmax(logits) v"
                )
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
        """Add the cells of a network, and one for its costs."""
        self._shifted(model, model.specification)
        if self.costs:
            self._cell(model, model.specification, "cost", "cost", (), "", {"name": "cost"}, self.costs)

    def _shifted(self, model: Node, measured: Mapping[str, Any], swap: str = "", control: bool = False) -> None:
        """Add the cells of what is measured on a network: one a ladder, one a severity elsewhere."""
        for entry, severities in self.shifts:
            rungs = [severities] if entry.value.ladder or len(severities) == 1 else [(s,) for s in severities]
            shift = entry.value
            for chosen in rungs:
                parts = (entry.label, shift.family, chosen, shift.unit, entry.identity, self.metrics)
                self._cell(model, measured, *parts, swap=swap, control=control)

    def swap(self, pair: tuple[str, str], rows: Iterable[Row]) -> list[tuple[str, str]]:
        """Add the cells of a mechanism swap: the attention of each row on the weights of the other, with its control.

        Returns what is not applicable, each with the reason. Raises BadProtocol where a pair cannot be swapped at all.
        """
        known = {row.label: row for row in rows if row.role != "a/a"}
        first, second = (_row(known, label, pair) for label in pair)
        _check_swap(first.variant.value, second.variant.value, pair)
        unfit = []
        for own, other in ((first, second), (second, first)):
            logits = own.variant.value.logits and other.variant.value.logits
            quiet = not own.variant.value.noise and not other.variant.value.noise
            if not logits or not quiet:
                reason = (
                    "both need logits and no noise" if not logits else "noise at inference moves the logits by itself"
                )
                unfit.append((f"control of {other.label} on the weights of {own.label}", reason))
            for fold in self.protocol.folds:
                for seed in own.seeds(self.protocol.training_seeds):
                    model = self.train(own.label, own.variant, fold, seed)
                    for control in (False, True) if logits and quiet else (False,):
                        specification = {
                            "node": "swap",
                            "model": model.specification,
                            "variant": dict(other.variant.identity),
                            "control": control,
                            "seed": self.protocol.noise_seed,
                            "version": SWAP_VERSION,
                        }
                        self._shifted(model, specification, other.label, control)
        return unfit

    def _cell(
        self,
        model: Node,
        measured: Mapping[str, Any],
        shift: str,
        family: str,
        severities: tuple[str, ...],
        unit: str,
        identity: Mapping[str, Any],
        metrics: Iterable[Entry[Metric]],
        *,
        swap: str = "",
        control: bool = False,
    ) -> None:
        noise = {"noise_seed": self.protocol.noise_seed, "draw": DRAW_VERSION}
        specification = {
            "node": "cell",
            "model": measured,
            "shift": {**identity, "severities": severities, **noise},
            "metrics": [metric.identity for metric in metrics],
            "limit": self.protocol.limit,
            "version": EVALUATION_VERSION,
        }
        span = f" {severities[0]}" + ("" if len(severities) == 1 else f"..{severities[-1]}") if severities else ""
        what = shift + span + (f" ({'as far as' if control else 'with'} {swap})" if swap else "")
        self._add(
            Node(
                kind="cell",
                key=key_of(specification),
                specification=plain(specification),
                label=model.label,
                what=what,
                model=model.key,
                fold=model.fold,
                training_seed=model.training_seed,
                needs=(model.key,),
                shift=shift,
                family=family,
                severities=severities,
                unit=unit,
                swap=swap,
                control=control,
            )
        )

    def grow(self, rows: Iterable[Row]) -> None:
        """Add everything that some rows ask for."""
        for fold in self.protocol.folds:
            for turn in range(len(self.protocol.training_seeds)):
                for row in rows:
                    for seed in row.seeds(self.protocol.training_seeds)[turn : turn + 1]:
                        self.cells(self.train(row.label, row.variant, fold, seed))

    def closure(self, labels: set[str]) -> set[str]:
        """Return the keys of the cells of some rows and of all that they need."""
        keys = {node.key for node in self.nodes.values() if node.kind == "cell" and node.label in labels}
        for node in reversed(self.nodes.values()):
            if node.key in keys:
                keys.update(node.needs)
        return keys

    def _add(self, node: Node) -> Node:
        return self.nodes.setdefault(node.key, node)


def _row(known: Mapping[str, Row], label: str, pair: tuple[str, str]) -> Row:
    if label not in known:
        raise BadProtocol(f"swap {':'.join(pair)}: '{label}' is no row; the rows are {', '.join(known)}")
    return known[label]


def _check_swap(first: Variant, second: Variant, pair: tuple[str, str]) -> None:
    """Raise BadProtocol where two variants do not share the tensors around their attention."""
    for variant in (first, second):
        if (
            variant.builds == "network"
            or variant.measured
            or variant.parameters_of
            or variant.pretrained == "impossible"
        ):
            raise BadProtocol(
                f"swap {':'.join(pair)}: '{variant.name}' cannot work on weights of another attention "
                "(a network of its own, a matched control, or other projections); choose two that share them"
            )
    if first.norm != second.norm or first.extra_tokens != second.extra_tokens:
        raise BadProtocol(f"swap {':'.join(pair)}: they want different norms or tokens; choose two that share them")
