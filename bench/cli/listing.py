"""`attnbench ls` and `show`: what can be named, and what one cell says."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...reports.trust import gates
from ...results.store import Store
from ..catalog import Catalog, open_catalog
from ..catalogue_page import catalogue_page
from ..error import BadInput, UnknownName
from ..protocol import builtin_protocols, read_protocol
from ..shift_page import built_in_shifts, shift_page

KINDS = ("variants", "shifts", "metrics", "tasks", "recipes", "protocols")


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
    settings = getattr(value, "settings", {})
    choices = getattr(value, "choices", {})
    return ", ".join(
        f"{k}={'|'.join(map(str, choices[k])) if k in choices else str(v).lower() if isinstance(v, bool) else v}"
        for k, v in settings.items()
    )


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
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "what it is", "settings" if kind != "protocols" else ""):
        table.add_column(heading, overflow="fold")
    for name, about, settings, _ in entries:
        table.add_row(name, about, settings)
    console.print(table, highlight=False)
    if kind == "shifts":
        console.print("\nand torchattacks:<Name> for every attack of torchattacks", markup=False, highlight=False)
    for reason in catalog.broken:
        console.print(f"could not be loaded: {reason}", style="red", highlight=False, markup=False)


def _find(cell: str, out: Path | None) -> tuple[Store, str]:
    roots = [out] if out is not None else sorted(Path("runs").glob("*"))
    everything = [(store, store.keys()) for store in map(Store, roots)]
    found = [(store, key) for store, keys in everything for key in keys if key.startswith(cell)]
    if not found:
        raise BadInput(
            f"no cell starts with '{cell}' in {', '.join(map(str, roots)) or 'runs'}; see `attnbench plan --json`"
        )
    if len({key for _, key in found}) > 1:
        raise BadInput(f"'{cell}' is the beginning of {len(found)} cells; give more characters")
    return found[0]


def show(
    cell: Annotated[str, typer.Argument(help="Key of a cell, or its beginning.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run [all in runs].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file as it is.")] = False,
) -> None:
    """Show what one cell measured, on what, and why it can be believed."""
    store, key = _find(cell, out)
    document = store.cell(key)
    if as_json:
        typer.echo(json.dumps(document, indent=1))
        return
    console = Console(highlight=False)
    specification = document["cell"]
    model, shift = specification["model"], specification["shift"]
    console.print(f"cell {key}\nin   {store.cell_path(key)}", soft_wrap=True)
    for name, part in (("variant", model["variant"]), ("recipe", model["recipe"]), ("shift", shift)):
        console.print(f"{name:8} {json.dumps(part)}", markup=False, soft_wrap=True)
    console.print(
        f"task     {model['task']['name']}, fold {model['task']['fold']}, training seed {model['training_seed']}"
    )
    for line in circumstances(document["facts"]):
        console.print(line, markup=False, soft_wrap=True)
    for fact in document["facts"].get("severities", ()):
        verdict = "valid" if fact["valid"] else f"INVALID: {fact['reason']}"
        moved = (
            f"moved by {fact['largest_perturbation']:.9g} of {fact['budget']:.9g} ({fact['ball']}), "
            if fact["budget"]
            else ""
        )
        pixels = f"pixels from {fact['lowest_pixel']:.4g} to {fact['highest_pixel']:.4g}"
        convention = f", eps {fact['pixel_eps']:.6g} in pixels (NON-STANDARD)" if "pixel_eps" in fact else ""
        console.print(f"severity {fact['severity']}: {verdict}, {moved}{pixels}{convention}", markup=False)
    if "trust" in document["facts"]:
        console.print(examination(document["facts"]["trust"]))
    table = Table("metric", "severity", "layer", "value", "deviation", "n", "unit", "status", box=None)
    for record in document["records"]:
        number = "-" if record["value"] is None else f"{record['value']:.6g}"
        deviation = "-" if record["deviation"] is None else f"{record['deviation']:.4g}"
        status = record["status"] + (f": {record['reason']}" if record["reason"] else "")
        layer = "" if record["layer"] is None else str(record["layer"])
        table.add_row(
            record["metric"], record["severity"], layer, number, deviation, str(record["n"]), record["unit"], status
        )
    console.print(table)
    made = document["provenance"]
    console.print(
        f"made {made['started']} by attnbench {made['attnbench']} {made['commit']}, torch {made['packages']['torch']}"
    )


def circumstances(facts: Mapping[str, Any]) -> list[str]:
    """Return in words how a model was attacked and judged, where that is out of the ordinary."""
    found = []
    if facts.get("judged_alone"):
        found.append(f"judged   one sample at a time, since others move its logits by {100 * facts['coupling']:.2g} %")
    if facts.get("passes", 1) > 1:
        found.append(f"judged   on {facts['passes']} fresh passes, since its answers vary")
    if facts.get("opened"):
        count = facts.get("taken_from_open", 0)
        found.append(f"attacked as it is and with every gradient path open; {count} points come from the latter")
    return found


def examination(facts: Mapping[str, Any]) -> Table:
    """Return the gates of an examination of adversarial numbers, with their verdicts."""
    table = Table("gate", "verdict", "value", "n", "threshold", "reason", box=None)
    for gate in gates(dict(facts)):
        numbers = ["-" if x is None else f"{x:.4g}" for x in (gate.value, gate.threshold)]
        table.add_row(gate.name, gate.verdict, numbers[0], str(gate.n), numbers[1], gate.reason)
    return table


def attach(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ls")(ls)
    app.command("show")(show)
