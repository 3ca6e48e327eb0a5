"""`attnbench perf`: what variants cost beside fused softmax, and whether they keep to their goals."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...results.provenance import provenance
from ..catalog import open_catalog
from ..error import BadInput, UnknownName
from ..perf.comparison import Comparison, Quantity
from ..perf.goal import EXPLICIT_FORM, FUSED, TIMED, goal, missed, verdict, with_goals

KINDS = ("variants",)
COLOURS = {"met": "green", "missed": "red", "not decided": "yellow", "": "dim"}
MEMORY: Quantity = "live memory"


def perf(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names, settings in parentheses, lists, globs, .py files [all].", metavar="NAMES"),
    ] = None,
    tokens: Annotated[str, typer.Option("--tokens", help="Numbers of tokens; commas.")] = "65,197,1024",
    repeats: Annotated[int, typer.Option("--repeats", help="Rounds, of which the medians count.")] = 21,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 5 where a goal is missed beyond doubt [all with a goal].")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every number.")] = False,
) -> None:
    """Time each variant's attention layer against fused softmax, forward and backward on one thread; count memory."""
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, f"the kinds are {', '.join(KINDS)}")
    sizes = token_counts(tokens)
    import torch

    from ..perf import layer, measurement
    from ..perf.paired_time import LEAST_ROUNDS

    if repeats < LEAST_ROUNDS:
        raise BadInput(f"{repeats} repeats say nothing about their spread; give --repeats {LEAST_ROUNDS} or more")
    torch.set_num_threads(1)
    if check and not names:
        names, sizes = with_goals(sizes), [count for count in sizes if with_goals([count])]
    entries = measurement.chosen(open_catalog(), names or ())
    if check and not {entry.label for entry in entries} & set(with_goals(sizes)):
        raise BadInput(f"--check: there is no goal for these variants at {tokens} tokens; leave out names or --tokens")
    remarks = {e.label: lines for e in entries if (lines := layer.remarks(e.value, e.settings))}
    found: list[Comparison] = []
    with Console(stderr=True).status("measuring") as status:
        for some in measurement.measured(entries, sizes, repeats, status.update):
            found += some
    if as_json:
        typer.echo(json.dumps(document(found, repeats, layer.sizes(), remarks), indent=1, allow_nan=False))
    else:
        show(Console(), found, remarks)
    raise typer.Exit(exit_code(found, check))


def token_counts(text: str) -> list[int]:
    """Read numbers of tokens."""
    try:
        sizes = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise BadInput(f"--tokens {text}: numbers from 1 are expected, with commas between them, as in 65,197")
    return sizes


def exit_code(found: Sequence[Comparison], check: bool) -> int:
    """Return 5 where a goal that is checked is missed, 1 where something could not be measured, 0 otherwise."""
    if check and missed(found):
        return 5
    return 1 if any(c.status == "failed" for c in found) else 0


def document(
    found: Sequence[Comparison], rounds: int, sizes: dict[str, int], remarks: dict[str, list[str]]
) -> dict[str, Any]:
    """Return everything that was found, and where."""
    return {
        "provenance": asdict(provenance(1, "cpu")),
        "layer": sizes,
        "rounds": rounds,
        "clock": "processor time of one thread",
        "comparisons": [{**asdict(c), "goal": goal(c), "verdict": verdict(c) or None} for c in found],
        "remarks": remarks,
    }


def show(console: Console, found: Sequence[Comparison], remarks: dict[str, list[str]]) -> None:
    """Print a table for each number of tokens, then what to know about it."""
    for tokens in dict.fromkeys(c.tokens for c in found):
        here = [c for c in found if c.tokens == tokens]
        console.print(f"\n{tokens} tokens: layer, forward and backward, times that of fused softmax", highlight=False)
        console.print(_layers([c for c in here if c.reference == FUSED]), highlight=False)
        if forms := [c for c in here if c.reference == EXPLICIT_FORM]:
            console.print("\nfused form beside the explicit one, attention alone", highlight=False)
            console.print(_forms(forms), highlight=False)
    for label, lines in remarks.items():
        console.print(f"{label}: {'; '.join(lines)}", markup=False, highlight=False)
    for c in found:
        if c.status == "failed":
            line = f"failed: {c.subject}, {c.tokens} tokens: {c.reason}"
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for c in missed(found):
        line = f"goal missed: {c.subject}, {c.tokens} tokens, {c.quantity}: {c.ratio:.3f}, wanted at most {goal(c):.3f}"
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def _layers(found: Sequence[Comparison]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("variant", overflow="fold")
    for heading in ("time", "95 % interval", "live memory", "goal"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    memory = {c.subject: c for c in found if c.quantity == MEMORY}
    for c in sorted((c for c in found if c.quantity == TIMED), key=_by_cost):
        if c.status != "measured":
            table.add_row(escape(c.subject), "-", "-", "-", "-", escape(f"{c.status}: {c.reason}"))
            continue
        held = memory[c.subject].ratio if c.subject in memory else None
        table.add_row(escape(c.subject), _number(c.ratio), _interval(c), _number(held), _number(goal(c)), _verdict(c))
    return table


def _by_cost(c: Comparison) -> tuple[bool, float, str]:
    return c.ratio is None, c.ratio or 0.0, c.subject


def _forms(found: Sequence[Comparison]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("variant", "of what", "ratio", "95 % interval", "gain", "goal", "verdict"):
        table.add_column(heading)
    for c in found:
        wanted = goal(c)
        gains = [_number(None if r is None else 1 / r) for r in (c.ratio, wanted)]
        table.add_row(escape(c.subject), c.quantity, _number(c.ratio), _interval(c), *gains, _verdict(c))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _interval(c: Comparison) -> str:
    if c.quantity == MEMORY:
        return "exact"
    return "one call" if c.low is None else f"{_number(c.low)} to {_number(c.high)}"


def _verdict(c: Comparison) -> str:
    word = verdict(c)
    return f"[{COLOURS[word]}]{word}[/]"


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("perf")(perf)
