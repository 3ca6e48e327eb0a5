"""attnbench from Python: `plan`, `run` and `report` as on the command line, `evaluate` for a network at hand."""

import contextlib
import fcntl
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..results.store import Store
from .catalog import Catalog, open_catalog
from .cell_node import ball, ladder_of
from .engine import Engine, Event, Limits, Outcome
from .error import AttnbenchError, BadInput, Incomplete
from .given import Given, read_given
from .plan import Plan, make_plan
from .protocol import Protocol, ShiftLine, find_protocol, read_backbone, read_swap
from .selection import expanded, split
from .state import State, invalid_cells, states

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


class Asked(NamedTuple):
    """What a user asks for, as every command that plans takes it."""

    protocol: str
    """Name, `name-version` or path of a protocol."""
    variants: tuple[str, ...] = ()
    """Rows to add: names, or files that declare them."""
    only: tuple[str, ...] = ()
    """Rows to limit the work to."""
    models: tuple[str, ...] = ()
    """Rows to add that are whole networks: `FILE.py:FUNCTION` or `NAME=FILE.py:FUNCTION`."""
    weights: tuple[str, ...] = ()
    """Weights that stand for a training: `NAME@SEED=FILE` or `NAME@SEED/FOLD=FILE`."""
    swaps: tuple[str, ...] = ()
    """Pairs of rows whose attention is exchanged after training: `A:B`."""
    attacks: tuple[str, ...] = ()
    """Attacks to add, each at the protocol's severities for its ball: names, settings in parentheses, globs."""
    backbone: str = ""
    """Another network than the protocol's: `timm:NAME(option=value,...)` or `vit(dim=32,...)`."""
    limit: int | None = None
    """Number of test samples."""
    out: Path | None = None
    """Folder of the run; None for `runs/<protocol>`."""


class Planned(NamedTuple):
    """A plan and the folder that it belongs to."""

    plan: Plan
    """What was asked for."""
    store: Store
    """Where it lies."""


class Ran(NamedTuple):
    """A run that has ended."""

    plan: Plan
    """What was asked for."""
    store: Store
    """Where it lies."""
    outcome: Outcome
    """How it ended."""
    known: dict[str, State]
    """Where each node stands."""
    invalid: dict[str, str]
    """Cells that broke a law, each with the reason."""

    @property
    def exit_code(self) -> int:
        """0, 1 or 3, as in the table of exit codes."""
        if self.outcome.stopped:
            return 3
        return 1 if self.invalid or any(state in ("failed", "blocked") for state in self.known.values()) else 0


def added(catalog: Catalog, variants: Iterable[str], models: Iterable[str] = ()) -> list[str]:
    """Return the rows that `--variant` and `--model` add: a file stands for all variants that it declares."""
    names: list[str] = []
    for text in (part for listed in variants for part in split(listed)):
        match = re.fullmatch(r"(.+?\.py)(?:(\(.*\))|:(.+))?", text, flags=re.DOTALL)
        if match is None:
            names.append(text)
            continue
        declared = catalog.add_file(match[1])
        own = [d.value.name for d in declared if d.value.name in catalog.found["variant"]]
        if not own:
            raise BadInput(f"{match[1]} declares no variant; add a constant such as MINE = Variant(name=..., core=...)")
        settings = match[2] or (f"({match[3]})" if match[3] else "")
        names.extend(name + settings for name in own)
    rows = expanded("variant", names, catalog.names("variant"))
    return [*rows, *map(catalog.add_model, models)]


def _chosen(asked: Asked) -> Protocol:
    protocol = find_protocol(asked.protocol)
    changes: dict[str, Any] = {} if asked.limit is None else {"limit": asked.limit}
    if asked.backbone:
        changes["backbone"] = read_backbone(asked.backbone)
    if asked.swaps:
        changes["swaps"] = (*protocol.swaps, *map(read_swap, asked.swaps))
    return protocol.model_copy(update=changes)


def attacked(protocol: Protocol, catalog: Catalog, attacks: Iterable[str]) -> Protocol:
    """Return the protocol with some attacks more, at the severities that it has for their balls, else at their own."""
    known = catalog.names("shift")
    entries = [catalog.shift(line.shift) for line in protocol.shifts]
    lines = list(protocol.shifts)
    for name in expanded("shift", attacks, [n for n in known if catalog.shift(n).value.family == "adversarial"]):
        entry = catalog.shift(name)
        if entry.value.family != "adversarial":
            raise BadInput(f"--attack '{name}' is a {entry.value.family} shift; put it into a protocol's [[shifts]]")
        if any(entry.label == other.label for other in entries):
            continue
        ladder = ladder_of(zip(entries, (line.severities for line in protocol.shifts), strict=False), ball(entry))
        own = entry.value.severities == ("unbounded",) or entry.value.convention or not entry.value.ladder
        lines.append(ShiftLine(shift=entry.label, severities=() if own else ladder))
        entries.append(entry)
    return protocol.model_copy(update={"shifts": tuple(lines)})


def _gone() -> Any:
    raise BadInput("this network lived in a Python process that has ended; evaluate it again")


def _kept(earlier: Mapping[str, Any], catalog: Catalog) -> list[str]:
    """Return the rows that earlier runs added; one that no longer exists is left out."""
    kept: list[str] = []
    for row in earlier.get("added", ()):
        with contextlib.suppress(AttnbenchError):
            if row.get("model"):
                catalog.add_model(row["model"], run=False)
            elif row.get("tree"):
                catalog.add_object(row["row"], _gone, row["tree"])
            elif row["file"] and row["file"] not in catalog.files:
                catalog.remember_file(row["file"])
            catalog.variant(row["row"])
            kept.append(row["row"])
    return kept


def plan(asked: Asked | str) -> Planned:
    """Return everything that is asked for, and the folder that it belongs to; neither torch nor timm is imported."""
    return _planned(Asked(asked) if isinstance(asked, str) else asked, open_catalog())


def _planned(asked: Asked, catalog: Catalog) -> Planned:
    protocol = attacked(_chosen(asked), catalog, asked.attacks)
    store = Store(asked.out if asked.out is not None else Path("runs") / protocol.title)
    names = added(catalog, asked.variants, asked.models)
    earlier = store.run() if (store.root / "run.json").exists() else {}
    kept = _kept(earlier, catalog)
    given = read_given(asked.weights, protocol.folds)
    kept_weights = [Given(**weights) for weights in earlier.get("weights", ())]
    made = make_plan(protocol, catalog, names, asked.only, kept, store.has, given, kept_weights)
    entries = {entry.label: entry for entry in map(catalog.variant, [*kept, *names])}
    made.document["added"] = [
        {
            "row": label,
            "file": catalog.file_of(entry.value.name),
            "model": catalog.model_of(entry.value.name),
            "tree": catalog.objects.get(entry.value.name, ""),
        }
        for label, entry in entries.items()
    ]
    return Planned(made, store)


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the folder's lock, which the system drops when the process ends in whatever way."""
    with (store.root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"another run is writing in {store.root}; wait for it, or give another --out") from None
        except OSError:
            warnings.warn(f"{store.root} lies on a file system without locks; do not run twice at once", stacklevel=2)
        yield


ONE_JOB = Limits()


def _nothing(event: Event) -> None:
    """Take note of nothing."""


def run(
    asked: Asked | str,
    *,
    limits: Limits = ONE_JOB,
    retry_failed: bool = False,
    batch: int = 500,
    device: str = "cpu",
    data: str = "",
    begin: Callable[[Planned, Mapping[str, State]], None] = lambda planned, known: None,
    listen: Callable[[Event], None] = _nothing,
) -> Ran:
    """Do everything that is missing and return how it ended; calling it again resumes.

    `begin` is told of the plan before work starts, `listen` of everything that happens.
    """
    if data and not Path(data).is_dir():
        raise BadInput(f"cannot read the data folder {data} (not a folder); check --data")
    if data:
        try:
            next(Path(data).iterdir(), None)
        except OSError as error:
            raise BadInput(f"cannot read the data folder {data} ({error.strerror}); check --data") from None
    planned = plan(asked)
    made, store = planned
    store.create()
    with _alone(store):
        try:
            store.sweep()
            store.publish_run(made.document)
        except OSError as error:
            fix = "free some space and run the same command again, or give another --out"
            raise Incomplete(f"cannot write in {store.root} ({error.strerror}); {fix}") from None
        known = states(made, store, retry_failed=retry_failed)
        begin(planned, known)
        options = {
            "files": list(made.files),
            "models": list(made.models),
            "weights": dict(made.weights),
            "batch": batch,
            "device": device,
            "data": data,
        }
        setup = {"store": str(store.root), "options": options}
        outcome = Engine(made, store, known, setup, limits, listen).run()
    if outcome.unfit:
        raise BadInput(outcome.unfit)
    return Ran(made, store, outcome, known, invalid_cells(made, store, known))


def evaluate(
    model: "nn.Module",
    protocol: str,
    *,
    name: str = "mine",
    limit: int | None = None,
    out: Path | None = None,
    **options: Any,
) -> "pd.DataFrame":
    """Judge a network of this process under a protocol and return its numbers, one row a record.

    `model` maps pixels `[batch, channel, height, width]` in [0, 1] to logits `[batch, class]`; it is used as it is, in
    eval mode, and a copy of it at that. Its row joins the run in `out` (`runs/<protocol>` where none is given), so a
    report of that folder shows it beside the others; calling again with the same network computes nothing anew.
    `options` are `batch`, `device` and `data`, as in `run`. Raises BadInput where the network cannot be judged.
    """
    from .evaluation import add_network, evaluated

    catalog = open_catalog()
    add_network(catalog, name, model)
    planned = _planned(Asked(protocol, variants=(name,), only=(name,), limit=limit, out=out), catalog)
    planned.store.create()
    with _alone(planned.store):
        planned.store.publish_run(planned.plan.document)
        evaluated(planned.plan, planned.store, catalog, name, options)
    found = records(planned.store.root)
    return found[found["label"] == name].reset_index(drop=True)


def report(folder: Path | str, destination: Path | None = None) -> Path:
    """Write the report of a run, unless the one there is current; return the page."""
    from ..reports.report import is_current, write

    folder = Path(folder)
    page = folder / "report" / "index.html"
    return page if destination is None and is_current(folder) else write(folder, destination)


def records(folder: Path | str) -> "pd.DataFrame":
    """Return every number of a run, one row a record."""
    from ..reports.frame import records as frame
    from ..reports.run import load

    return frame(load(Path(folder)))
