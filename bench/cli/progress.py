"""What a user sees while a run works: a live bar with an estimate on a terminal, one line a node elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..engine import Event
from ..node import Node
from ..plan import Plan
from ..state import State, kind_of_work

WORDS = {"done": "done", "invalid": "INVALID", "failed": "FAILED", "blocked": "blocked"}


def clock(seconds: float) -> str:
    """Say a duration as people do.

    >>> [clock(s) for s in (4.2, 75, 4000)]
    ['4 s', '1 min 15 s', '1 h 6 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(slots=True)
class Forecast:
    """How long the rest will take, from how long each kind of work took so far."""

    jobs: int
    """Processes that share the work."""
    remaining: dict[str, int] = field(default_factory=dict)
    """Nodes that are not done, by kind of work."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Durations seen, by kind of work."""

    def seen(self, node: Node, seconds: float) -> None:
        """Take note of a finished node."""
        kind = kind_of_work(node)
        self.remaining[kind] = max(self.remaining.get(kind, 0) - 1, 0)
        if seconds:
            self.seconds.setdefault(kind, []).append(seconds)

    def rest(self) -> float | None:
        """Return the seconds that are left; None while too little has been seen to say."""
        known = [sum(times) / len(times) for kind, times in self.seconds.items() if kind != "train"]
        if not known:
            return None
        typical = sorted(known)[len(known) // 2]
        each = {k: sum(v) / len(v) for k, v in self.seconds.items()}
        return sum(count * each.get(kind, typical) for kind, count in self.remaining.items()) / self.jobs


class Display:
    """Listens to a run and shows it."""

    def __init__(self, console: Console, jobs: int) -> None:
        self.console = console
        self.jobs = jobs
        self.bar: Progress | None = None
        self.forecast = Forecast(jobs)
        self.done = 0
        self.total = 0
        self.started = time.monotonic()

    def begin(self, plan: Plan, known: Mapping[str, State], durations: Mapping[str, float]) -> None:
        """Say what there is to do."""
        todo = [node for node in plan.nodes if known[node.key] == "missing"]
        self.total = len(todo)
        for node in todo:
            kind = kind_of_work(node)
            self.forecast.remaining[kind] = self.forecast.remaining.get(kind, 0) + 1
        self.forecast.seconds = {kind: [seconds] for kind, seconds in durations.items()}
        if todo and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}"),
                console=self.console,
                transient=True,
            )
            self.bar.add_task("starting", total=self.total, rest="")
            self.bar.start()

    def hear(self, event: Event) -> None:
        """Show one event."""
        name = f"{event.node.label}  {event.node.what}"
        fold = f"fold {event.node.fold} seed {event.node.training_seed}"
        if event.what == "started":
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], description=f"{name}  [dim]{fold}[/dim]")
            return
        self.done += 1
        self.forecast.seen(event.node, event.seconds)
        rest = self.forecast.rest()
        left = "" if rest is None else f"{clock(rest)} left"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, rest=left)
        if event.what != "blocked" and (self.bar is None or event.what != "done"):
            after = f"{event.seconds:6.2f} s" if event.seconds else ""
            line = f"[{self.done}/{self.total}] {WORDS[event.what]:7} {after:9} {name}  ({fold}) {event.reason or left}"
            self.console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Put the terminal back."""
        if self.bar is not None:
            self.bar.stop()
