"""attnbench from Python: `plan`, `run` and `report`, the same as the commands of that name, and `records`."""

import contextlib
import fcntl
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..results.store import Store
from .catalog import Catalog, open_catalog
from .engine import Engine, Event, Limits, Outcome
from .error import AttnbenchError, BadInput, Incomplete
from .plan import Plan, make_plan
from .protocol import Protocol, find_protocol
from .selection import expanded
from .state import State, invalid_cells, states

if TYPE_CHECKING:
    import pandas as pd


class Asked(NamedTuple):
    """What a user asks for, as every command that plans takes it."""

    protocol: str
    """Name, `name-version` or path of a protocol."""
    variants: tuple[str, ...] = ()
    """Rows to add: names, or files that declare them."""
    only: tuple[str, ...] = ()
    """Rows to limit the work to."""
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


def _added(catalog: Catalog, variants: Iterable[str]) -> list[str]:
    """Return the rows that `--variant` adds: a file stands for all variants that it declares."""
    names: list[str] = []
    for text in variants:
        path, parenthesis, settings = text.partition("(")
        if path.endswith(".py"):
            declared = catalog.add_file(path)
            own = [d.value.name for d in declared if d.value.name in catalog.found["variant"]]
            if not own:
                raise BadInput(f"{path} declares no variant; add a constant such as MINE = Variant(name=..., core=...)")
            names.extend(name + parenthesis + settings for name in own)
        else:
            names.append(text)
    return expanded("variant", names, catalog.names("variant"))


def _chosen(asked: Asked) -> Protocol:
    protocol = find_protocol(asked.protocol)
    return protocol if asked.limit is None else protocol.model_copy(update={"limit": asked.limit})


def _kept(store: Store, catalog: Catalog) -> list[str]:
    """Return the rows that earlier runs added; one that no longer exists is left out."""
    if not (store.root / "run.json").exists():
        return []
    kept: list[str] = []
    for added in store.run().get("added", ()):
        with contextlib.suppress(AttnbenchError):
            if added["file"] and added["file"] not in catalog.files:
                catalog.remember_file(added["file"])
            catalog.variant(added["row"])
            kept.append(added["row"])
    return kept


def plan(asked: Asked | str) -> Planned:
    """Return everything that is asked for, and the folder that it belongs to; neither torch nor timm is imported."""
    asked = Asked(asked) if isinstance(asked, str) else asked
    protocol = _chosen(asked)
    store = Store(asked.out if asked.out is not None else Path("runs") / protocol.title)
    catalog = open_catalog()
    names = _added(catalog, asked.variants)
    kept = _kept(store, catalog)
    made = make_plan(protocol, catalog, names, asked.only, kept, store.has)
    added = {entry.label: entry for entry in map(catalog.variant, [*kept, *names])}
    made.document["added"] = [
        {"row": label, "file": catalog.file_of(entry.value.name)} for label, entry in added.items()
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
        options = {"files": list(made.files), "batch": batch, "device": device, "data": data}
        setup = {"store": str(store.root), "options": options}
        outcome = Engine(made, store, known, setup, limits, listen).run()
    if outcome.unfit:
        raise BadInput(outcome.unfit)
    return Ran(made, store, outcome, known, invalid_cells(made, store, known))


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
