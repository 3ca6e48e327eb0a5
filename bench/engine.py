"""Runs a plan on this machine: hands groups to worker processes and survives whatever happens to them."""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from ..results.provenance import provenance
from ..results.store import Store
from .node import Node
from .plan import Plan
from .process import Events, Message, Process
from .state import State

STILLBORN = 3
"""Workers in a row that may end before they could begin, until the run stops."""


class Event(NamedTuple):
    """Something that happened to a node."""

    what: Literal["started", "done", "invalid", "failed", "blocked"]
    """What."""
    node: Node
    """To which."""
    seconds: float = 0.0
    """How long it took."""
    reason: str = ""
    """Why, in one line."""


class Limits(NamedTuple):
    """When to stop."""

    jobs: int = 1
    """Worker processes."""
    timeout: float | None = None
    """Seconds that one node may take."""
    deadline: float | None = None
    """Seconds after which no new work is begun and running work is left."""


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    done: int = 0
    """Nodes that were done."""
    failed: int = 0
    """Nodes that failed."""
    blocked: int = 0
    """Nodes that wait for one that failed."""
    unfit: str = ""
    """What the user has to mend before any work can begin."""
    stopped: str = ""
    """Why it stopped before the end; empty where it did not."""


@dataclass(slots=True)
class Engine:
    """One run of one plan."""

    plan: Plan
    """What is to be done."""
    store: Store
    """Where it is kept."""
    known: dict[str, State]
    """Where each node stands; changed as work is done."""
    setup: Mapping[str, Any]
    """What each worker is told first."""
    limits: Limits
    """When to stop."""
    report: Callable[[Event], None]
    """Told of everything that happens."""
    outcome: Outcome = field(default_factory=Outcome)
    """How it ended, so far."""
    waiting: dict[str, list[Node]] = field(default_factory=dict)
    """Groups that nobody has, by their name."""
    nodes: dict[str, Node] = field(default_factory=dict)
    """Nodes by key."""
    stillborn: int = 0
    """Workers in a row that ended before they could begin."""
    started: float = field(default_factory=time.monotonic)
    """When it began."""

    def run(self) -> Outcome:
        """Do all that is missing; return how it ended."""
        self.nodes = self.plan.by_key()
        for node in self.plan.nodes:
            if self.known[node.key] == "missing":
                self.waiting.setdefault(node.group, []).append(node)
        self.outcome.blocked = sum(state == "blocked" for state in self.known.values())
        if not self.waiting:
            return self.outcome
        events: Events = queue.SimpleQueue()
        workers: list[Process] = []
        with _signals(self.stop):
            try:
                while not self.outcome.stopped and (self.waiting or any(worker.group for worker in workers)):
                    self._assign(workers, events)
                    self._watch(workers)
                    with contextlib.suppress(queue.Empty):
                        worker, message = events.get(timeout=0.1)
                        self._hear(workers, worker, message)
            finally:
                for worker in workers:
                    worker.close()
        return self.outcome

    def stop(self, reason: str) -> None:
        """Stop on the way; the same command resumes."""
        self.outcome.stopped = self.outcome.stopped or reason

    def _ready(self) -> list[Node] | None:
        for model, group in list(self.waiting.items()):
            own = {node.key for node in group}
            outside = {need for node in group for need in node.needs if need not in own}
            if any(self.known[need] in ("failed", "blocked") for need in outside):
                for node in self.waiting.pop(model):
                    self._block(node)
            elif all(self.known[need] == "cached" for need in outside):
                return self.waiting.pop(model)
        return None

    def _assign(self, workers: list[Process], events: Events) -> None:
        idle = [worker for worker in workers if not worker.group]
        while idle or len(workers) < self.limits.jobs:
            group = self._ready()
            if group is None:
                return
            if not idle:
                workers.append(Process(self.setup, events))
                idle = [workers[-1]]
            idle.pop().give(group)

    def _watch(self, workers: Sequence[Process]) -> None:
        now = time.monotonic()
        if self.limits.deadline is not None and now - self.started > self.limits.deadline:
            self.stop("the time that --max-hours allows is used up")
        for worker in workers:
            timeout = self.limits.timeout
            busy = worker.current is not None and not worker.killed
            if timeout is not None and busy and now - worker.since > timeout:
                worker.kill(f"ran out of time (more than {timeout:g} s)")

    def _hear(self, workers: list[Process], worker: Process, message: Message | None) -> None:
        if message is None:
            self._bury(workers, worker)
        elif message["event"] == "ready":
            worker.ready = True
            self.stillborn = 0
        elif message["event"] == "idle":
            worker.group = []
        elif message["event"] == "unfit":
            self.outcome.unfit = message["reason"]
            self.stop("a worker refused its task")
        elif message["event"] == "started":
            worker.current, worker.since = self.nodes[message["key"]], time.monotonic()
            self.report(Event("started", worker.current))
        elif message["event"] in ("done", "failed", "blocked"):
            node = self.nodes[message["key"]]
            worker.current = None
            if message["event"] == "done":
                self.known[node.key] = "cached"
                self.outcome.done += 1
                self.report(Event("done" if message["valid"] else "invalid", node, message["seconds"]))
            elif message["event"] == "blocked":
                self._block(node)
            else:
                self._fail(
                    node,
                    message["reason"],
                    message["detail"],
                    transient=message["transient"],
                    mendable=message["mendable"],
                )
                if message["full_disk"]:
                    self.stop(f"no space is left in {self.store.root}; free some and run the same command again")

    def _bury(self, workers: list[Process], worker: Process) -> None:
        """A process is gone: its current node failed, the rest of its group waits for another process."""
        workers.remove(worker)
        node = worker.current
        rest = [other for other in worker.group if self.known[other.key] == "missing" and other is not node]
        if node is not None:
            detail = worker.last_words()
            self._fail(node, worker.killed or worker.epitaph(), detail, transient=not worker.killed)
            lost = {node.key}
            for other in list(rest):
                if lost.intersection(other.needs):
                    lost.add(other.key)
                    rest.remove(other)
                    self._block(other)
        elif not worker.ready:
            self.stillborn += 1
            if self.stillborn >= STILLBORN:
                words = " ".join(worker.last_words().split())[-300:]
                self.stop(f"{self.stillborn} workers could not start: {worker.epitaph()}: {words}")
        if rest:
            self.waiting[rest[0].group] = rest
        worker.close()

    def _block(self, node: Node) -> None:
        self.known[node.key] = "blocked"
        self.outcome.blocked += 1
        reason = next((need for need in node.needs if self.known[need] in ("failed", "blocked")), "")
        self.report(Event("blocked", node, reason=f"waits for: {self.nodes[reason].what}" if reason else ""))

    def _fail(self, node: Node, reason: str, detail: str, *, transient: bool, mendable: bool = False) -> None:
        self.known[node.key] = "failed"
        self.outcome.failed += 1
        here = provenance(1, self.setup["options"]["device"])
        attempt = {
            "schema": 1,
            "kind": node.kind,
            "key": node.key,
            "label": node.label,
            "what": node.what,
            "reason": reason,
            "detail": detail,
            "transient": transient,
            "mendable": mendable,
            "started": here.started,
            "provenance": asdict(here),
        }
        with contextlib.suppress(OSError):
            self.store.publish_attempt(node.key, attempt)
        self.report(Event("failed", node, reason=reason))


@contextlib.contextmanager
def _signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Turn an interrupt or a request to end into an orderly stop; elsewhere than in the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end"}
    before = {number: signal.signal(number, lambda n, _: stop(names[signal.Signals(n)])) for number in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
