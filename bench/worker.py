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
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..attacks.adversarial.look import SMALLEST_BATCH
from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..attacks.shift import Shift
from ..models.logit_spread import logit_spread
from ..models.network import Network
from ..models.own_network import OwnNetwork, fault
from ..results.store import Store, StoreError, digest, publish
from .catalog import Entry
from .cell import Filled, as_documents, fill, fill_cost, fill_trust
from .cell_node import TRUST
from .checkpoint import load_weights, tensor_bytes
from .error import AttnbenchError, BadInput
from .fit import calibration_samples
from .key import key_of
from .noise import drawn
from .shifting import Ensemble
from .target import ModelTarget
from .workplace import Options, Workplace, limited

Send = Callable[[Mapping[str, Any]], None]


def train(place: Workplace, node: Mapping[str, Any]) -> None:
    """Train a network, or take in the weights that are given for it, and publish them and how they came about."""
    specification = node["specification"]
    started = time.perf_counter()
    model = place.network(specification)
    if "weights" in specification:
        facts = taken_in(place, model, specification["weights"])
    elif specification["recipe"] is None:
        facts = {"given": True}
    else:
        recipe = place.entry("recipe", specification["recipe"])
        data = place.samples(specification).train
        facts = dict(recipe.value.fit(model, data, specification["training_seed"], **recipe.settings))
    facts.update(model.origin())
    if isinstance(model, OwnNetwork):
        examine(place, model, specification)
    path, weights = place.store.checkpoint_path(node["key"]), tensor_bytes(model.state_dict())
    note = {
        "schema": 1,
        "key": node["key"],
        "train": specification,
        "facts": facts,
        "weights_sha256": digest(weights),
        "timing": {"seconds": time.perf_counter() - started},
        "provenance": asdict(place.provenance),
    }
    place.store.publish_note(path.with_suffix(".json"), note)
    publish(path, weights)


def taken_in(place: Workplace, model: Network, sha256: str) -> dict[str, Any]:
    """Fill a network with given weights, strictly; return what a report should know of them."""
    path = place.given(sha256)
    fix = "give the weights of this very network"
    tensors = load_weights(model.inner, path, fix)
    return {"given": True, "file": path.name, "tensors": len(tensors)}


def examine(place: Workplace, model: OwnNetwork, specification: Mapping[str, Any]) -> None:
    """Raise BadInput where a user's network cannot be judged, before any cell is begun."""
    samples = place.samples(specification).test.rows(range(SMALLEST_BATCH))
    draw = Draw(0, "examine", "judge")
    noise = drawn(model.noise(), samples.ids, draw, place.options.device)
    try:
        reason = fault(model, samples.pixels.to(place.options.device), noise)
    except Exception as error:
        reason = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
    if reason:
        raise BadInput(f"the network '{specification['variant']['name']}' cannot be judged: {reason}")


def calibrate(place: Workplace, node: Mapping[str, Any]) -> None:
    """Measure what others need of a donor, on the calibration samples, and publish it."""
    specification = node["specification"]
    target = place.target(specification["model"])
    samples = calibration_samples(place.samples(specification["model"]).train)
    pixels = samples.pixels.to(place.options.device)
    draw = Draw(specification["model"]["training_seed"], "train", "calibrate")
    noise = drawn(target.noise, samples.ids, draw, place.options.device)
    known = {"logit_spread": logit_spread}
    measured = {name: known[name](target.model, pixels, noise).float() for name in specification["quantities"]}
    publish(place.store.measured_path(node["key"]), tensor_bytes(measured))


def cell(place: Workplace, node: Mapping[str, Any], target: ModelTarget) -> bool:
    """Fill a cell and publish it; return whether it is valid."""
    specification = node["specification"]
    started = time.perf_counter()
    model = specification["model"]
    data = place.samples(model["model"] if model["node"] == "swap" else model)
    samples = limited(data.test, specification["limit"])
    samples = samples._replace(
        pixels=samples.pixels.to(place.options.device), labels=samples.labels.to(place.options.device)
    )
    filled = measured(place, specification, target, samples)
    document = {
        "schema": 1,
        "key": node["key"],
        "cell": specification,
        "records": as_documents(filled.records),
        "facts": {**filled.facts, **target.facts, "weights_sha256": target.weights},
        "timing": {"seconds": time.perf_counter() - started},
        "provenance": asdict(place.provenance),
    }
    place.store.publish_cell(node["key"], document, filled.outcomes)
    return all(severity["valid"] for severity in filled.facts.get("severities", ()))


def measured(place: Workplace, specification: Mapping[str, Any], target: ModelTarget, samples: Samples) -> Filled:
    """Return what a cell asks for: costs, the examination of adversarial numbers, or what a shift does."""
    asked = specification["shift"]
    metrics = [place.entry("metric", identity).value for identity in specification["metrics"]]
    if asked["name"] == "cost":
        return fill_cost(target, samples, metrics)
    sources = tuple(place.target(source) for source in specification.get("sources", ()))
    surrogate = Ensemble(sources) if sources else None
    if asked["name"] == TRUST:
        return fill_trust(
            target, samples, asked["norm"], asked["severities"], asked["samples"], asked["noise_seed"], surrogate
        )
    shift: Entry[Shift] = place.entry("shift", asked)
    noise = asked["noise_seed"]
    return fill(target, samples, shift, asked["severities"], metrics, noise, place.options.batch, surrogate)


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
    targets: dict[str, ModelTarget] = {}
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
                model = node["specification"]["model"]
                name = key_of(model)
                if name not in targets:
                    targets = {name: place.target(model)}
                valid = cell(place, node, targets[name])
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
    options = Options(**first["options"])
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
