"""What one worker keeps between groups, and how it makes the networks that specifications name."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attacks.samples import Samples
from ..models.demand import carrying, parameter_count, widened
from ..models.network import Network
from ..models.own_network import OwnNetwork
from ..models.variant import Variant
from ..models.vit import VisionTransformerShape, build
from ..results.provenance import Provenance, provenance
from ..results.store import Store, digest
from .catalog import Catalog, Entry, open_catalog
from .checkpoint import load_tensors, load_weights
from .error import BadInput
from .key import key_of
from .selection import label
from .split import Split
from .swapping import swapped
from .target import ModelTarget


class Options(NamedTuple):
    """How a worker works; nothing here changes a number."""

    files: tuple[str, ...] = ()
    """Files with declarations that the user named."""
    models: tuple[str, ...] = ()
    """Networks that the user named, `NAME=FILE:FUNCTION` each."""
    weights: Mapping[str, str] = {}
    """Where given weights lie, by their digest."""
    batch: int = 500
    """Samples a pass."""
    device: str = "cpu"
    """Where tensors live."""
    data: str = ""
    """Folder of data sets."""


class Workplace:
    """What one process keeps between groups: the catalogue, the data, the environment."""

    def __init__(self, store: Store, options: Options, catalog: Catalog | None = None) -> None:
        torch.set_num_threads(1)
        try:
            torch.zeros(1, device=options.device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
            raise BadInput(f"device '{options.device}' cannot be used here ({why}); give another --device") from None
        self.store = store
        self.options = options
        self.catalog = open_catalog(options.files, options.models) if catalog is None else catalog
        self.provenance: Provenance = provenance(torch.get_num_threads(), options.device)
        self.split = lru_cache(maxsize=2)(self._split)

    def _split(self, task: str, fold: int) -> Split:
        split: Split = self.catalog.task(task).value.load(fold, self.options.data or None)
        return split

    def entry(self, kind: str, identity: Mapping[str, Any]) -> Entry[Any]:
        """Return the entry that a specification names, with exactly its settings."""
        entry = self.catalog.entry(kind, identity["name"])
        settings = identity["settings"]
        return Entry(entry.value, settings, label(identity["name"], settings, entry.settings), identity)

    def samples(self, specification: Mapping[str, Any]) -> Split:
        """Return the data of a `train` node's fold."""
        return self.split(specification["task"]["name"], specification["task"]["fold"])

    def network(
        self, specification: Mapping[str, Any], variant: Mapping[str, Any] | None = None, *, start: bool = True
    ) -> Network:
        """Build the network of a `train` node with its initial values; `variant` puts another attention into it.

        Without `start`, weights that a timm model begins with are left out: others are about to take their place.
        """
        entry = self.entry("variant", variant or specification["variant"])
        if entry.value.builds == "network":
            classes = len(self.catalog.task(specification["task"]["name"]).value.classes)
            built = entry.value.core(**entry.settings)
            if not isinstance(built, nn.Module):
                raise BadInput(f"'{entry.label}' built a {type(built).__name__}; its function has to return a module")
            return OwnNetwork(built, classes).to(self.options.device)
        sizes = specification["backbone"]
        measured = None
        if specification["donor"] is not None:
            measured = load_tensors(self.store.measured_path(key_of(specification["donor"])))
        if sizes["name"].startswith("timm:"):
            return self._timm(sizes, specification["training_seed"], entry, measured, start=start).to(
                self.options.device
            )
        shape = VisionTransformerShape(**{k: sizes[k] for k in VisionTransformerShape._fields if k in sizes})
        shape = carrying(shape, entry.value, entry.settings)
        if "like" in specification:
            donor = self.entry("variant", specification["like"])
            like = carrying(shape, donor.value, donor.settings)
            wanted = parameter_count(donor.value.core, donor.settings, like)
            shape = widened(shape, entry.value.core, entry.settings, wanted)
        seed = specification["training_seed"]
        return build(entry.value.core, entry.settings, shape, seed, measured).to(self.options.device)

    def _timm(
        self,
        chosen: Mapping[str, Any],
        seed: int,
        entry: Entry[Variant],
        measured: Mapping[str, Tensor] | None,
        *,
        start: bool,
    ) -> Network:
        """Build a timm model around a variant, with the weights that it starts from."""
        from ..models.timm_model import build_timm

        own = chosen["channels"] == 3 and (chosen["start"] or chosen["pretrained"])
        try:
            return build_timm(
                chosen["name"].removeprefix("timm:"),
                entry.value,
                entry.settings,
                classes=chosen["classes"],
                image=chosen["image"],
                channels=chosen["channels"],
                mean=None if own else chosen["mean"],
                std=None if own else chosen["std"],
                seed=seed,
                weights=self.given(chosen["start"]) if chosen["start"] and start else None,
                pretrained=chosen["pretrained"] and start,
                head=chosen["head"],
                resampling=chosen["resampling"] or None,
                options=chosen["options"],
                measured=measured,
            )
        except (ValueError, OSError) as error:
            raise BadInput(" ".join(str(error).split())) from error

    def trained(self, specification: Mapping[str, Any]) -> tuple[Network, str]:
        """Return a trained network and the digest of its weights; others than training left raise BadInput."""
        path = self.store.checkpoint_path(key_of(specification))
        model = self.network(specification, start=False)
        load_weights(model, path)
        weights, note = digest(path.read_bytes()), path.with_suffix(".json")
        if note.exists() and self.store.note(note).get("weights_sha256", weights) != weights:
            raise BadInput(f"{path} is not what its training left; delete it and run the same command again")
        return model, weights

    def target(self, specification: Mapping[str, Any]) -> ModelTarget:
        """Return what a cell measures: a trained network, perhaps with another attention on its weights."""
        if specification["node"] == "train":
            network, weights = self.trained(specification)
            opened = self._opened(specification, specification["variant"])
            if opened is not None:
                opened.load_state_dict(network.state_dict())
            return ModelTarget(network, weights, opened=None if opened is None else ModelTarget(opened))
        model, weights = self.trained(specification["model"])
        network, facts = swapped(self, model, specification)
        opened = None if specification["control"] else self._opened(specification["model"], specification["variant"])
        if opened is not None:
            opened.load_state_dict(network.state_dict())
        return ModelTarget(network, weights, facts, None if opened is None else ModelTarget(opened))

    def _opened(self, specification: Mapping[str, Any], variant: Mapping[str, Any]) -> Network | None:
        """Build a network whose attention computes the same function and cuts no gradient; None where it cuts none."""
        settings = self.entry("variant", variant).value.open_settings
        if not settings or all(variant["settings"].get(name) == value for name, value in settings.items()):
            return None
        return self.network(specification, {**variant, "settings": {**variant["settings"], **settings}}, start=False)

    def given(self, sha256: str) -> Path:
        """Return the file of given weights; one that changed since the plan raises BadInput."""
        path = Path(self.options.weights.get(sha256, ""))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(
                f"cannot read the weights {path} ({error.strerror}); give them again with --weights"
            ) from None
        if digest(content) != sha256:
            raise BadInput(f"{path} is not the file that was planned; run the same command again")
        return path


def limited(samples: Samples, limit: int | None) -> Samples:
    """Return the first samples, all where there is no limit."""
    return samples if limit is None else samples.rows(range(min(limit, len(samples.ids))))
