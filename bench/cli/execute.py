"""`attnbench plan`, `run` and `status`: what there is to do, doing it, and how far it is."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import api
from ..engine import Limits
from ..error import BadInput
from ..plan import Plan
from ..state import MEANING, State, durations, has_failed, invalid_cells, kind_of_work, states
from .option import Attack, Backbone, Json, Limit, Model, Only, Out, Protocol, Swap, Variant, Weights, asked_for
from .progress import Display, clock


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rows(plan: Plan, known: Mapping[str, State]) -> list[dict[str, Any]]:
    rows: dict[str, Counter[str]] = {row.label: Counter() for row in plan.rows}
    for node in plan.nodes:
        rows.setdefault(node.label, Counter())[known[node.key]] += 1
    return [{"row": label, **counts} for label, counts in rows.items() if counts]


def plan(
    protocol: Protocol,
    variant: Variant = None,
    model: Model = None,
    weights: Weights = None,
    swap: Swap = None,
    attack: Attack = None,
    backbone: Backbone = "",
    only: Only = None,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show what a protocol asks for, what of it is there, and what the rest will cost."""
    made, store = api.plan(asked_for(protocol, variant, model, weights, swap, attack, backbone, only, limit, out))
    known = states(made, store)
    seen = durations(made, store, known)
    missing = [node for node in made.nodes if known[node.key] == "missing"]
    unseen = sorted({kind_of_work(node) for node in missing} - seen.keys())
    cost = sum(seen.get(kind_of_work(node), 0.0) for node in missing)
    if as_json:
        nodes = [
            {
                "kind": n.kind,
                "key": n.key,
                "row": n.label,
                "what": n.what,
                "fold": n.fold,
                "training_seed": n.training_seed,
                "needs": list(n.needs),
                "state": known[n.key],
            }
            for n in made.nodes
        ]
        document = {
            "protocol": made.protocol.title,
            "out": str(store.root),
            "nodes": nodes,
            "core_seconds": cost,
            "unknown_cost": unseen,
            "not_applicable": [list(pair) for pair in made.not_applicable],
        }
        typer.echo(json.dumps(document, indent=1))
        return
    console = Console()
    console.print(f"{made.protocol.title}{' (draft)' if made.protocol.draft else ''}: {made.protocol.question}")
    kinds = Counter(node.kind for node in made.nodes)
    shape = f"{kinds['train']} networks, {kinds['calibrate']} donors to measure, {kinds['cell']} cells"
    console.print(f"{shape} in {store.root}", highlight=False)
    used = [state for state in MEANING if any(known[node.key] == state for node in made.nodes)]
    table = Table("row", *used, box=None)
    for row in _rows(made, known):
        table.add_row(row["row"], *(str(row.get(state, 0)) for state in used))
    console.print(table)
    for label, reason in made.not_applicable:
        console.print(f"{label}: not applicable, {reason}", highlight=False)
    work = {node.label for node in made.nodes}
    kept = [row.label for row in made.rows if row.label not in work]
    if kept:
        console.print(f"also on the board: {', '.join(kept)}", highlight=False, markup=False)
    if missing:
        guess = f"about {clock(cost)} of one core" if seen else "cost not known before the first cells are done"
        rest = f"; not known yet: {', '.join(unseen)}" if seen and unseen else ""
        console.print(f"to do: {len(missing)}, {guess}{rest}", highlight=False)


def run(
    protocol: Protocol,
    variant: Variant = None,
    model: Model = None,
    weights: Weights = None,
    swap: Swap = None,
    attack: Attack = None,
    backbone: Backbone = "",
    only: Only = None,
    limit: Limit = None,
    out: Out = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes [one a core].", envvar="ATTNBENCH_JOBS")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Samples a pass; changes no number.", envvar="ATTNBENCH_BATCH")
    ] = 500,
    device: Annotated[str, typer.Option(help="Where tensors live.", envvar="ATTNBENCH_DEVICE")] = "cpu",
    data: Annotated[str, typer.Option(help="Folder of data sets.", envvar="ATTNBENCH_DATA")] = "",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that one node may take.", envvar="ATTNBENCH_TIMEOUT")
    ] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop after this time.", envvar="ATTNBENCH_MAX_HOURS")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed for good.")] = False,
) -> None:
    """Do everything that a protocol asks for and that is not there yet. The same command resumes."""
    console = Console()
    processes = jobs or available_cores()
    display = Display(console, processes)

    def begin(planned: api.Planned, known: Mapping[str, State]) -> None:
        made, store = planned
        for label, reason in made.not_applicable:
            console.print(f"{label}: not applicable, {reason}", highlight=False)
        missing = sum(state == "missing" for state in known.values())
        cached = sum(state == "cached" for state in known.values())
        console.print(f"{made.protocol.title} in {store.root}: {missing} to do, {cached} there", highlight=False)
        display.begin(made, known, durations(made, store, known) if missing else {})

    try:
        ran = api.run(
            asked_for(protocol, variant, model, weights, swap, attack, backbone, only, limit, out),
            limits=Limits(processes, timeout, None if max_hours is None else max_hours * 3600),
            retry_failed=retry_failed,
            batch=batch,
            device=device,
            data=data,
            begin=begin,
            listen=display.hear,
        )
    finally:
        display.end()
    _conclude(console, ran)
    raise typer.Exit(ran.exit_code)


def _conclude(console: Console, ran: api.Ran) -> None:
    by_key = ran.plan.by_key()
    for key, reason in ran.invalid.items():
        node = by_key[key]
        console.print(
            f"invalid: {node.label}  {node.what}: {reason} (attnbench show {key[:8]})", highlight=False, markup=False
        )
    failed = [key for key, state in ran.known.items() if state == "failed"]
    for key in failed:
        node, attempts = by_key[key], ran.store.attempts(key)
        reason = attempts[-1]["reason"] if attempts else "no reason could be kept"
        console.print(f"failed: {node.label}  {node.what}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if any(has_failed(ran.store, key) for key in failed):
        console.print("`--retry-failed` tries those again that failed for good", highlight=False)
    blocked = sum(state == "blocked" for state in ran.known.values())
    if blocked:
        console.print(f"blocked: {blocked} nodes wait for one that failed", highlight=False)
    if ran.outcome.stopped:
        left = sum(state == "missing" for state in ran.known.values())
        message = f"stopped: {ran.outcome.stopped}; {left} left, the same command resumes"
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    elif not failed and not blocked:
        console.print("nothing to do" if not ran.outcome.done else f"{ran.outcome.done} done", highlight=False)
    console.print(f"next: attnbench report {ran.store.root}", highlight=False, markup=False, soft_wrap=True)


def status(
    protocol: Protocol,
    variant: Variant = None,
    model: Model = None,
    weights: Weights = None,
    swap: Swap = None,
    attack: Attack = None,
    backbone: Backbone = "",
    only: Only = None,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
    keys: Annotated[bool, typer.Option("--keys", help="List the cells, one a line, with keys for `show`.")] = False,
) -> None:
    """Show how far a run is: done, missing, failed, invalid. Exit 0 when all is there and valid, 1 or 3 otherwise."""
    made, store = api.plan(asked_for(protocol, variant, model, weights, swap, attack, backbone, only, limit, out))
    if not store.root.exists():
        raise BadInput(f"no run in {store.root}; start one with `attnbench run {protocol}`")
    known = states(made, store)
    invalid = invalid_cells(made, store, known)
    failed = [
        {"row": n.label, "what": n.what, "key": n.key, "reason": store.attempts(n.key)[-1]["reason"]}
        for n in made.nodes
        if known[n.key] == "failed"
    ]
    counts = Counter(known.values())
    if as_json:
        document = {
            "protocol": made.protocol.title,
            "out": str(store.root),
            "states": dict(counts),
            "rows": _rows(made, known),
            "failed": failed,
            "invalid": invalid,
        }
        typer.echo(json.dumps(document, indent=1))
    elif keys:
        typer.echo("\n".join(_key_lines(made, known)))
    else:
        console = Console()
        console.print(f"{made.protocol.title} in {store.root} (--keys lists the cells)", highlight=False)
        for state, meaning in MEANING.items():
            if counts[state]:
                console.print(f"{counts[state]:6} {state:8} {meaning}", highlight=False)
        for entry in failed:
            line = f"failed: {entry['row']}  {entry['what']}: {entry['reason']}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        by_key = made.by_key()
        for key, reason in invalid.items():
            console.print(f"invalid: {by_key[key].label}  {by_key[key].what}: {reason}", highlight=False, markup=False)
    raise typer.Exit(1 if failed or invalid or counts["blocked"] else 3 if counts["missing"] else 0)


def _key_lines(plan: Plan, known: Mapping[str, State]) -> list[str]:
    """Return a line for each cell: key, state, network, row, shift with its severities."""
    cells = [node for node in plan.nodes if node.kind == "cell"]
    width = max((len(node.label) for node in cells), default=0)
    return [
        f"{n.key[:12]}  {known[n.key]:7}  fold {n.fold} seed {n.training_seed:<4}  {n.label:{width}}  {n.what}"
        for n in cells
    ]


def attach(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("run")(run)
    app.command("status")(status)
