"""`attnbench check` and `new`: prove what a variant declares, and start one that passes."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..catalog import open_catalog
from ..new import KINDS, start

if TYPE_CHECKING:
    from ..check.finding import Finding

COLOURS = {"pass": "green", "fail": "red", "not applicable": "dim"}


def check(
    variants: Annotated[
        list[str], typer.Argument(help="Names, settings in parentheses, lists, globs, `all`, or .py files.")
    ],
    only: Annotated[list[str] | None, typer.Option("--only", help="Run these checks only; commas.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Leave these checks out; commas.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every finding.")] = False,
) -> None:
    """Prove what variants declare: shapes, gradients, causality, noise, costs, and that a network with them works."""
    import torch

    from ..check.report import chosen, examined, subjects

    torch.set_num_threads(1)
    names = chosen(only or (), skip or ())
    examining = subjects(open_catalog(), variants)
    console = Console()
    findings: list[Finding] = []
    with Console(stderr=True).status("checking") as status:
        for subject in examining:
            status.update(f"checking {subject.entry.label}")
            findings += examined(subject, names)
    if as_json:
        typer.echo(
            json.dumps([_document(label, own) for label, own in _by_variant(findings)], indent=1, allow_nan=False)
        )
    else:
        console.print(_details(findings) if len(examining) == 1 else _overview(findings), highlight=False)
        for finding in findings:
            if finding.status == "fail":
                line = f"fail: {finding.variant} {finding.check}: {finding.found}; {finding.fix}"
                console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if any(finding.status == "fail" for finding in findings) else 0)


def _by_variant(findings: "Sequence[Finding]") -> "list[tuple[str, list[Finding]]]":
    labels = dict.fromkeys(finding.variant for finding in findings)
    return [(label, [f for f in findings if f.variant == label]) for label in labels]


def _document(label: str, findings: "Sequence[Finding]") -> dict[str, Any]:
    fields = ("check", "status", "found", "fix", "seconds")
    rows = [{field: getattr(finding, field) for field in fields} for finding in findings]
    return {"variant": label, "passed": all(f.status != "fail" for f in findings), "findings": rows}


def _details(findings: "Sequence[Finding]") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("check", "outcome", "found"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.status]
        found = "see below" if finding.status == "fail" else finding.found
        table.add_row(finding.check, f"[{colour}]{finding.status}[/]", _literal(found))
    return table


def _overview(findings: "Sequence[Finding]") -> Table:
    table = Table("variant", *COLOURS, "seconds", box=None, padding=(0, 2, 0, 0))
    for label, own in _by_variant(findings):
        outcomes = Counter[str](finding.status for finding in own)
        numbers = [str(outcomes[status]) for status in COLOURS]
        table.add_row(_literal(label), *numbers, f"{sum(finding.seconds for finding in own):.1f}")
    return table


def _literal(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def new(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Lower snake case; the file is called NAME.py.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path(),
) -> None:
    """Write a complete, commented variant and its test; both pass untouched."""
    taken = open_catalog().names(kind) if kind in KINDS else ()
    file, test = start(kind, name, out, taken)
    typer.echo(f"wrote {file} and {test}\nnext: attnbench check {file} && pytest {test}")


def attach(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check")(check)
    app.command("new")(new)
