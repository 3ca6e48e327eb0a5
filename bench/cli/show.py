"""`attnbench show`: what one cell measured, on what, and why it can be believed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...results.store import Document, Store
from ..error import BadInput
from .belief import declared, examination, to_do, trust_line, verdict_lines
from .smallest import smallest


def _find(cell: str, out: Path | None) -> tuple[Store, str]:
    roots = [out] if out is not None else sorted(Path("runs").glob("*"))
    everything = [(store, store.keys()) for store in map(Store, roots)]
    found = [(store, key) for store, keys in everything for key in keys if key.startswith(cell)]
    if not found:
        where = ", ".join(map(str, roots)) or "runs"
        raise BadInput(f"no cell starts with '{cell}' in {where}; `attnbench status PROTOCOL --keys` lists them")
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
    facts = document["facts"]
    for line in [*_heading(store, key, document), *circumstances(facts), *_doubts(store, key, document)]:
        console.print(line, markup=False, soft_wrap=True)
    for fact in facts.get("severities", ()):
        console.print(severity_line(fact), markup=False, soft_wrap=True)
    if "trust" in facts:
        console.print(examination(facts["trust"]))
        for line in to_do(facts["trust"]):
            console.print(line, markup=False, soft_wrap=True)
    if document["records"]:
        console.print(_numbers(document["records"]))
    made = document["provenance"]
    console.print(
        f"made {made['started']} by attnbench {made['attnbench']} {made['commit']}, torch {made['packages']['torch']}"
    )


def _heading(store: Store, key: str, document: Document) -> list[str]:
    """Return the lines that say what the cell is; a swap works on the weights of the network that it names."""
    specification = document["cell"]
    swap = specification["model"] if specification["model"]["node"] == "swap" else None
    model = swap["model"] if swap else specification["model"]
    parts = {"variant": model["variant"], "recipe": model["recipe"], "shift": specification["shift"]}
    if swap:
        parts["swap"] = {"attention": swap["variant"], "control": swap["control"]}
    task = f"{model['task']['name']}, fold {model['task']['fold']}, training seed {model['training_seed']}"
    return [
        f"cell {key}\nin   {store.cell_path(key)}",
        *(f"{name:8} {json.dumps(part)}" for name, part in parts.items()),
        f"task     {task}",
    ]


def _doubts(store: Store, key: str, document: Document) -> list[str]:
    """Return what is known to be wrong with a shift, how far an attack is believed, and how small a change fools."""
    if "trust" in document["facts"]:
        return verdict_lines(document["facts"]["trust"])
    shift = document["cell"]["shift"]
    about = declared(store, shift["name"])
    norm = shift.get("settings", {}).get("norm", about.get("norm", ""))
    found = [f"warning  {about['warning']}"] if about.get("warning") else []
    if about.get("family") == "adversarial":
        found.append(trust_line(store, document["cell"]["model"], norm, about))
    if about.get("minimum_norm") and document["facts"]["deterministic"] and document["outcomes"]:
        found += smallest(store.outcomes(key), norm)
    return found


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


def severity_line(fact: Mapping[str, Any]) -> str:
    """Return what came of one severity: whether it is lawful, how far samples were moved, and their pixels.

    >>> severity_line({"severity": "0.05", "valid": True, "budget": 0.05, "ball": "linf",
    ...                "largest_perturbation": 0.0500000119, "lowest_pixel": 0.0, "highest_pixel": 1.0})
    'severity 0.05: valid, moved by 0.05 (float32 rounding) of 0.05 (linf), pixels from 0 to 1'
    """
    parts = ["valid" if fact["valid"] else f"INVALID: {fact['reason']}"]
    if fact["budget"]:
        largest, budget = fact["largest_perturbation"], fact["budget"]
        rounded = " (float32 rounding)" if fact["valid"] and budget < largest < 1.001 * budget else ""
        parts.append(f"moved by {largest:.6g}{rounded} of {budget:.6g} ({fact['ball']})")
    parts.append(f"pixels from {fact['lowest_pixel']:.4g} to {fact['highest_pixel']:.4g}")
    if "pixel_eps" in fact:
        parts.append(f"eps {fact['pixel_eps']:.6g} in pixels (NON-STANDARD)")
    return f"severity {fact['severity']}: {', '.join(parts)}"


def _numbers(records: list[Document]) -> Table:
    """Return the numbers of a cell, one row each."""
    table = Table("metric", "severity", "layer", "value", "deviation", "n", "unit", "status", box=None)
    for record in records:
        number = "-" if record["value"] is None else f"{record['value']:.6g}"
        deviation = "-" if record["deviation"] is None else f"{record['deviation']:.4g}"
        status = record["status"] + (f": {record['reason']}" if record["reason"] else "")
        layer = "" if record["layer"] is None else str(record["layer"])
        table.add_row(
            record["metric"], record["severity"], layer, number, deviation, str(record["n"]), record["unit"], status
        )
    return table


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)
