"""`attnbench ls`: what can be named."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..catalog import Catalog, open_catalog
from ..catalogue_page import catalogue_page
from ..error import BadInput, UnknownName
from ..markdown import setting_texts
from ..protocol import builtin_protocols, read_protocol
from ..shift_page import built_in_shifts, shift_page

KINDS = ("variants", "shifts", "metrics", "tasks", "recipes", "protocols")
WIDE = 110
"""Columns from which on the table of shifts has room for balls and severities."""
SHIFTS = """
Every attack of torchattacks is a shift too, as torchattacks:PGD; docs/shifts.md lists them."""
"""Line under the table of shifts."""


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {k: v for k, v in found.items() if k not in ("core", "apply", "measure", "load", "fit")}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else _scalar(value)


def _scalar(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else dict(value)


def _settings(value: Any) -> str:
    return ", ".join(setting_texts(getattr(value, "settings", {}), getattr(value, "choices", {})))


def _entries(catalog: Catalog, kind: str) -> list[tuple[str, str, str, Any]]:
    if kind == "protocols":
        read = {name: read_protocol(path) for name, path in builtin_protocols().items()}
        return [(n, p.question, "draft" if p.draft else "", p.model_dump(mode="json")) for n, p in read.items()]
    singular = kind[:-1]
    found = []
    for name in catalog.names(singular):
        declared = catalog.found[singular][name]
        value = declared.value
        about = getattr(value, "summary", "") or getattr(value, "definition", "")
        origin = declared.origin.module or declared.origin.path
        found.append((name, about, _settings(value), {**_plain(value), "declared_in": origin}))
    return found


def _table(kind: str, entries: Sequence[tuple[str, str, str, Any]], width: int) -> Table:
    """Return the table of a kind; balls and severities of shifts only where a line has room for them."""
    wide = kind == "shifts" and width >= WIDE
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("name", overflow="fold")
    table.add_column("what it is", overflow="fold")
    longest = max((len(word) for _, _, settings, _ in entries for word in settings.split()), default=0)
    table.add_column("settings" if kind != "protocols" else "", overflow="fold", min_width=min(longest, width // 3))
    for heading in ("ball", "severities") if wide else ():
        table.add_column(heading, no_wrap=True)
    for name, about, settings, value in entries:
        table.add_row(name, about, settings, *(_reach(value) if wide else ()))
    return table


def _reach(shift: dict[str, Any]) -> tuple[str, str]:
    """Return the balls that a shift may keep to, and between what its severities lie."""
    balls = shift["choices"].get("norm", [shift["norm"]])
    ends = list(dict.fromkeys((shift["severities"][0], shift["severities"][-1])))
    return " or ".join(balls), " to ".join(ends)


def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    variant: Annotated[list[str] | None, typer.Option("--variant", help="Files with declarations to list too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every field.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of all variants or shifts.")] = False,
) -> None:
    """List what can be named in a protocol or on the command line."""
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, f"the kinds are {', '.join(KINDS)}")
    catalog = open_catalog()
    for path in variant or ():
        catalog.remember_file(str(Path(path).resolve()))
    if as_markdown:
        if kind not in ("variants", "shifts") or as_json:
            raise BadInput("--markdown prints the page of variants or shifts: `attnbench ls variants --markdown`")
        if kind == "variants":
            typer.echo(catalogue_page(catalog.found["variant"].values()), nl=False)
        else:
            typer.echo(shift_page(built_in_shifts(catalog)), nl=False)
        return
    entries = _entries(catalog, kind)
    if as_json:
        typer.echo(json.dumps([document for *_, document in entries], indent=1))
        return
    console = Console()
    console.print(_table(kind, entries, console.width), highlight=False)
    if kind == "shifts":
        console.print(SHIFTS, markup=False, highlight=False, soft_wrap=True)
    for reason in catalog.broken:
        console.print(f"could not be loaded: {reason}", style="red", highlight=False, markup=False)


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ls")(ls)
