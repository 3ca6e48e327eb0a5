"""`attnbench perf`: what variants cost beside fused softmax and attacks beside torchattacks, and their goals."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...results.provenance import provenance
from ..catalog import open_catalog
from ..error import BadInput, UnknownName
from ..perf.comparison import Comparison, Quantity
from ..perf.goal import EXPLICIT_FORM, FUSED, TIMED, TORCHATTACKS, goal, missed, verdict, with_goals

KINDS = ("variants", "attacks")
TOKENS, ROUNDS = "65,197,1024", {"variants": 21, "attacks": 15}
COLOURS = {"met": "green", "missed": "red", "not decided": "yellow", "": "dim"}
MEMORY: tuple[Quantity, ...] = ("live memory", "saved memory")


class Measured(NamedTuple):
    """What one kind of measurement brought."""

    found: list[Comparison]
    """All comparisons."""
    about: dict[str, Any]
    """What was measured: sizes, steps, networks."""
    remarks: dict[str, list[str]]
    """What to know about some of it."""


def perf(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants: names, settings in parentheses, lists, globs, .py files [all].", metavar="NAMES"
        ),
    ] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help=f"Numbers of tokens; commas [{TOKENS}].")] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Rounds, of which the medians count [variants 21, attacks 15].")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 5 where a goal is missed beyond doubt [all with a goal].")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every number.")] = False,
) -> None:
    """Time variants' layers against fused softmax, or PGD against torchattacks, on one thread; count their memory."""
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, f"the kinds are {', '.join(KINDS)}")
    if kind == "attacks" and (names or tokens):
        raise BadInput("perf attacks has its own networks: it takes neither names nor --tokens; leave them out")
    sizes = token_counts(TOKENS if tokens is None else tokens)
    rounds = ROUNDS[kind] if repeats is None else repeats
    import torch

    from ..perf.paired_time import LEAST_ROUNDS

    if rounds < LEAST_ROUNDS:
        raise BadInput(f"{rounds} repeats say nothing about their spread; give --repeats {LEAST_ROUNDS} or more")
    torch.set_num_threads(1)
    measured = of_attacks(rounds) if kind == "attacks" else of_variants(names or [], sizes, rounds, check)
    if as_json:
        typer.echo(json.dumps(document(measured, rounds), indent=1, allow_nan=False))
    else:
        show(Console(), measured)
    raise typer.Exit(exit_code(measured.found, check))


def of_variants(names: Sequence[str], sizes: Sequence[int], rounds: int, check: bool) -> Measured:
    """Measure the layers of variants; those with a goal where it is checked and none is named."""
    from ..perf import layer, measurement

    if check and not names:
        names, sizes = with_goals(sizes), [count for count in sizes if with_goals([count])]
    entries = measurement.chosen(open_catalog(), names)
    if check and not {entry.label for entry in entries} & set(with_goals(sizes)):
        tokens = ",".join(map(str, sizes))
        raise BadInput(f"--check: there is no goal for these variants at {tokens} tokens; leave out names or --tokens")
    remarks = {e.label: lines for e in entries if (lines := layer.remarks(e.value, e.settings))}
    found: list[Comparison] = []
    with Console(stderr=True).status("measuring") as status:
        for some in measurement.measured(entries, sizes, rounds, status.update):
            found += some
    return Measured(found, {"layer": layer.sizes()}, remarks)


def of_attacks(rounds: int) -> Measured:
    """Measure PGD on the networks that are made for it."""
    from ..perf import attack, victim

    with Console(stderr=True).status("measuring") as status:
        found, networks = attack.attacks(victim.VICTIMS, rounds, status.update)
    return Measured(found, {"steps": attack.STEPS, "networks": networks}, {})


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


def document(measured: Measured, rounds: int) -> dict[str, Any]:
    """Return everything that was found, and where."""
    return {
        "provenance": asdict(provenance(1, "cpu")),
        **measured.about,
        "rounds": rounds,
        "clock": "processor time of one thread",
        "comparisons": [{**asdict(c), "goal": goal(c), "verdict": verdict(c) or None} for c in measured.found],
        "remarks": measured.remarks,
    }


def show(console: Console, measured: Measured) -> None:
    """Print a table for each number of tokens, then what to know about it."""
    found = measured.found
    for tokens in dict.fromkeys(c.tokens for c in found):
        here = [c for c in found if c.tokens == tokens]
        headed: dict[str, tuple[str, Callable[[Sequence[Comparison]], Table]]] = {
            FUSED: (f"{tokens} tokens: layer, forward and backward, times that of fused softmax", _layers),
            EXPLICIT_FORM: ("fused form beside the explicit one, attention alone", _forms),
            TORCHATTACKS: (f"{measured.about.get('networks', {}).get(tokens)}: ours, times torchattacks", _attacks),
        }
        for reference, (heading, table) in headed.items():
            if some := [c for c in here if c.reference == reference]:
                console.print(f"\n{heading}", markup=False, highlight=False)
                console.print(table(some), highlight=False)
    for label, lines in measured.remarks.items():
        console.print(f"{label}: {'; '.join(lines)}", markup=False, highlight=False)
    for c in found:
        if c.status == "failed":
            line = f"failed: {c.subject}, {c.tokens} tokens: {c.reason}"
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for c in missed(found):
        what = f"{c.subject}, {c.tokens} tokens, {c.quantity}" + (f" at eps {c.severity}" if c.severity else "")
        line = f"goal missed: {what}: {c.ratio:.3f}, wanted at most {goal(c):.3f}"
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def _layers(found: Sequence[Comparison]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("variant", overflow="fold")
    for heading in ("time", "95 % interval", "live memory", "goal"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    memory = {c.subject: c for c in found if c.quantity == "live memory"}
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


def _attacks(found: Sequence[Comparison]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("attack", "of what", "eps", "standing", "evaluations", "ratio", "95 % interval", "goal", "verdict"):
        table.add_column(heading, overflow="fold")
    for c in found:
        standing = " ".join(f"{100 * share:.0f}" for share in c.standing or ()) + (" %" if c.standing else "-")
        costs = [_number(c.work), _number(c.ratio), _interval(c), _number(goal(c)), _verdict(c)]
        table.add_row(escape(c.subject), c.quantity, c.severity.replace(",", " "), standing, *costs)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _interval(c: Comparison) -> str:
    if c.quantity in MEMORY:
        return "exact"
    return "one call" if c.low is None else f"{_number(c.low)} to {_number(c.high)}"


def _verdict(c: Comparison) -> str:
    word = verdict(c)
    return f"[{COLOURS[word]}]{word}[/]"


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("perf")(perf)
