"""Judges a network that lives in this Python process: the cells of a protocol, without a worker process."""

import contextlib
import copy
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from ..results.store import Store
from .catalog import Catalog
from .checkpoint import tensor_bytes
from .error import BadInput
from .plan import Plan
from .state import states
from .worker import do
from .workplace import Options, Workplace


def fingerprint(model: nn.Module) -> str:
    """Return the sha256 of a network: its tensors, its modules in order with their settings, and their source."""
    found = hashlib.sha256(tensor_bytes(dict(model.state_dict())))
    for name, buffer in model.named_buffers():
        found.update(f"\0{name}\0".encode() + tensor_bytes({"buffer": buffer}))
    for name, module in model.named_modules():
        held = {k: v for k, v in vars(module).items() if not k.startswith("_")}
        tensors = {k: v for k, v in held.items() if isinstance(v, torch.Tensor)}
        plain = {k: repr(v) for k, v in held.items() if k not in tensors and k != "training"}
        found.update(f"\0{name}\0{type(module).__qualname__}\0{module.extra_repr()}\0{sorted(plain.items())}".encode())
        found.update(tensor_bytes(tensors))
    for kind in sorted({type(module) for module in model.modules()}, key=lambda kind: kind.__qualname__):
        found.update(f"\0{kind.__module__}.{kind.__qualname__}\0".encode())
        if not kind.__module__.startswith("torch."):
            with contextlib.suppress(OSError, TypeError):
                found.update(inspect.getsource(kind).encode())
    return found.hexdigest()


def add_network(catalog: Catalog, name: str, model: nn.Module) -> None:
    """Let a plan name a network of this process; building it hands out a copy, so nothing done to it shows outside."""
    catalog.add_object(name, lambda: copy.deepcopy(model), fingerprint(model))


def evaluated(plan: Plan, store: Store, catalog: Catalog, row: str, options: Mapping[str, Any]) -> None:
    """Fill the missing cells of one row in this process; the first that fails raises BadInput with its reason."""
    known = states(plan, store, retry_failed=True)
    group = [asdict(node) for node in plan.nodes if known[node.key] == "missing"]
    threads = torch.get_num_threads()

    def hear(event: Mapping[str, Any]) -> None:
        if event["event"] == "failed":
            raise BadInput(f"'{row}': {event['reason']}")

    try:
        do(Workplace(store, Options(**options), catalog), group, hear)
    finally:
        torch.set_num_threads(threads)
