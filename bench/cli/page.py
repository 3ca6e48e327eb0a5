"""`attnbench report`: the page, tables and figures of a run."""

import re
from pathlib import Path
from typing import Annotated

import typer

from .. import api
from ..error import BadInput, UnknownName
from ..protocol import find_protocol

RUNS = Path("runs")
"""Where runs lie unless `--out` said otherwise."""


def report(
    run: Annotated[
        str, typer.Argument(help="Folder of a run, or name or file of the protocol whose run lies in runs.")
    ],
    destination: Annotated[Path | None, typer.Option("--to", help="Where to write it [RUN/report].")] = None,
) -> None:
    """Write the report of a run, from its files alone; prints where the page is."""
    folder = _folder(run)
    typer.echo(f"report: {api.report(folder, destination)}")


def _folder(run: str) -> Path:
    """Return the folder of a run: as it is named, in `runs`, of a protocol, or of the highest version of a name."""
    for folder in (Path(run), RUNS / run):
        if (folder / "run.json").exists():
            return folder
    if Path(run).is_dir():
        raise BadInput(f"no run in {run}; name the folder that `attnbench run` named")
    try:
        title = find_protocol(run).title
    except UnknownName as error:
        if versions := _versions(run):
            return versions[-1]
        there = ", ".join(str(path.parent) for path in sorted(RUNS.glob("*/run.json")))
        raise BadInput(f"{error}; " + (f"the runs here are {there}" if there else "no run lies in runs")) from None
    if not (RUNS / title / "run.json").exists():
        raise BadInput(f"no run in {RUNS / title}; start one with `attnbench run {run}`")
    return RUNS / title


def _versions(name: str) -> list[Path]:
    """Return the runs of a protocol of the user's own, `runs/NAME-VERSION`, rising."""
    found = [
        path.parent for path in RUNS.glob("*/run.json") if re.fullmatch(rf"{re.escape(name)}-\d+", path.parent.name)
    ]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)
