"""Does the work of one group: trains or loads one network, measures it as a donor, fills its cells.

A process of its own: it reads one group a line from standard input and answers one event a line, so that whatever kills
it leaves the engine standing; and it ends at once when its engine is gone, because standard input ends with it.
"""

import errno
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..attacks.shift import Shift
from ..models.logit_spread import logit_spread
from ..models.network import Network
from ..models.vit import VisionTransformerShape, build
from ..results.provenance import Provenance, provenance
from ..results.store import Store, StoreError, digest, publish
from .catalog import Catalog, Entry, open_catalog
from .cell import as_documents, fill, fill_cost
from .checkpoint import load_tensors, load_weights, tensor_bytes
from .error import AttnbenchError, BadInput
from .fit import calibration_samples
from .key import key_of
from .noise import drawn
from .selection import label
from .split import Split
from .target import ModelTarget

Send = Callable[[Mapping[str, Any]], None]


class Options(NamedTuple):
    """How a worker works; nothing here changes a number."""

    files: tuple[str, ...] = ()
    """Files with declarations that the user named."""
    batch: int = 500
    """Samples a pass."""
    device: str = "cpu"
    """Where tensors live."""
    data: str = ""
    """Folder of data sets."""


class Workplace:
    """What one process keeps between groups: the catalogue, the data, the environment."""

    def __init__(self, store: Store, options: Options) -> None:
        torch.set_num_threads(1)
        try:
            torch.zeros(1, device=options.device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
            raise BadInput(f"device '{options.device}' cannot be used here ({why}); give another --device") from None
        self.store = store
        self.options = options
        self.catalog: Catalog = open_catalog(options.files)
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

    def network(self, specification: Mapping[str, Any]) -> Network:
        """Build the network of a `train` node with its initial values."""
        variant = self.entry("variant", specification["variant"])
        shape = {k: specification["backbone"][k] for k in VisionTransformerShape._fields}
        measured = None
        if specification["donor"] is not None:
            measured = load_tensors(self.store.measured_path(key_of(specification["donor"])))
        model = build(
            variant.value.core,
            variant.settings,
            VisionTransformerShape(**shape),
            specification["training_seed"],
            measured,
        )
        return model.to(self.options.device)

    def samples(self, specification: Mapping[str, Any]) -> Split:
        """Return the data of a `train` node's fold."""
        return self.split(specification["task"]["name"], specification["task"]["fold"])


def train(place: Workplace, node: Mapping[str, Any]) -> None:
    """Train a network and publish its weights and how they came about."""
    specification = node["specification"]
    started = time.perf_counter()
    model = place.network(specification)
    recipe = place.entry("recipe", specification["recipe"])
    facts = recipe.value.fit(
        model, place.samples(specification).train, specification["training_seed"], **recipe.settings
    )
    path, weights = place.store.checkpoint_path(node["key"]), tensor_bytes(model.state_dict())
    note = {
        "schema": 1,
        "key": node["key"],
        "train": specification,
        "facts": dict(facts),
        "weights_sha256": digest(weights),
        "timing": {"seconds": time.perf_counter() - started},
        "provenance": asdict(place.provenance),
    }
    place.store.publish_note(path.with_suffix(".json"), note)
    publish(path, weights)


def load(place: Workplace, key: str, specification: Mapping[str, Any]) -> ModelTarget:
    """Return a trained network, ready to be attacked and judged; weights that training did not leave raise BadInput."""
    model, path = place.network(specification), place.store.checkpoint_path(key)
    load_weights(model, path)
    weights, note = digest(path.read_bytes()), path.with_suffix(".json")
    if note.exists() and place.store.note(note).get("weights_sha256", weights) != weights:
        raise BadInput(f"{path} is not what its training left; delete it and run the same command again")
    return ModelTarget(model, weights)


def calibrate(place: Workplace, node: Mapping[str, Any]) -> None:
    """Measure what others need of a donor, on the calibration samples, and publish it."""
    specification = node["specification"]
    target = load(place, node["model"], specification["model"])
    samples = calibration_samples(place.samples(specification["model"]).train)
    pixels = samples.pixels.to(place.options.device)
    draw = Draw(specification["model"]["training_seed"], "train", "calibrate")
    noise = drawn(target.noise, samples.ids, draw, place.options.device)
    known = {"logit_spread": logit_spread}
    measured = {name: known[name](target.model, pixels, noise).float() for name in specification["quantities"]}
    publish(place.store.measured_path(node["key"]), tensor_bytes(measured))


def _limited(samples: Samples, limit: int | None) -> Samples:
    return samples if limit is None else samples.rows(range(min(limit, len(samples.ids))))


def cell(place: Workplace, node: Mapping[str, Any], target: ModelTarget) -> bool:
    """Fill a cell and publish it; return whether it is valid."""
    specification = node["specification"]
    started = time.perf_counter()
    samples = _limited(place.samples(specification["model"]).test, specification["limit"])
    samples = samples._replace(
        pixels=samples.pixels.to(place.options.device), labels=samples.labels.to(place.options.device)
    )
    metrics = [place.entry("metric", identity).value for identity in specification["metrics"]]
    if specification["shift"]["name"] == "cost":
        filled = fill_cost(target, samples, metrics)
    else:
        shift: Entry[Shift] = place.entry("shift", specification["shift"])
        filled = fill(
            target,
            samples,
            shift,
            specification["shift"]["severities"],
            metrics,
            specification["shift"]["noise_seed"],
            place.options.batch,
        )
    document = {
        "schema": 1,
        "key": node["key"],
        "cell": specification,
        "records": as_documents(filled.records),
        "facts": {**filled.facts, "weights_sha256": target.weights},
        "timing": {"seconds": time.perf_counter() - started},
        "provenance": asdict(place.provenance),
    }
    place.store.publish_cell(node["key"], document, filled.outcomes)
    return all(severity["valid"] for severity in filled.facts.get("severities", ()))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if is_mendable(error) else f"{type(error).__name__}: {text}"


def is_transient(error: BaseException) -> bool:
    """Whether the same command should try again: memory or the machine ran short, or the user was told what to mend."""
    return isinstance(error, (MemoryError, OSError)) or is_mendable(error) or "out of memory" in str(error).lower()


def is_mendable(error: BaseException) -> bool:
    """Whether the user was told what to mend."""
    return isinstance(error, (AttnbenchError, StoreError))


def is_full_disk(error: BaseException) -> bool:
    """Whether no space was left to write."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def do(place: Workplace, group: Sequence[Mapping[str, Any]], send: Send) -> None:
    """Work through the nodes of one model, in order; a node that fails leaves the others standing."""
    target: ModelTarget | None = None
    lost: set[str] = set()
    for node in group:
        if lost.intersection(node["needs"]):
            lost.add(node["key"])
            send({"event": "blocked", "key": node["key"]})
            continue
        send({"event": "started", "key": node["key"]})
        started = time.perf_counter()
        try:
            valid = True
            if node["kind"] == "train":
                train(place, node)
            elif node["kind"] == "calibrate":
                calibrate(place, node)
            else:
                target = target or load(place, node["model"], node["specification"]["model"])
                valid = cell(place, node, target)
        except Exception as error:
            lost.add(node["key"])
            send(
                {
                    "event": "failed",
                    "key": node["key"],
                    "reason": _reason(error),
                    "detail": traceback.format_exc(),
                    "transient": is_transient(error),
                    "mendable": is_mendable(error),
                    "full_disk": is_full_disk(error),
                }
            )
            if is_full_disk(error):
                return
        else:
            seconds = time.perf_counter() - started
            send({"event": "done", "key": node["key"], "seconds": seconds, "valid": valid})


def _listen(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(3)


def main() -> None:
    """Serve groups until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def send(event: Mapping[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(event) + "\n")
            answers.flush()

    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    first = json.loads(lines.get())
    options = Options(**{**first["options"], "files": tuple(first["options"]["files"])})
    try:
        place = Workplace(Store(Path(first["store"])), options)
    except AttnbenchError as error:
        send({"event": "unfit", "reason": str(error)})
        return
    send({"event": "ready"})
    while True:
        do(place, json.loads(lines.get())["group"], send)
        send({"event": "idle"})


if __name__ == "__main__":
    main()
