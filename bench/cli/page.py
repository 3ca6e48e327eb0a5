"""`attnbench report`: the page, tables and figures of a run."""

from pathlib import Path
from typing import Annotated

import typer

from .. import api
from ..error import BadInput
from ..protocol import find_protocol


def report(
    run: Annotated[str, typer.Argument(help="Folder of a run, or the protocol whose run lies in runs.")],
    destination: Annotated[Path | None, typer.Option("--to", help="Where to write it [RUN/report].")] = None,
) -> None:
    """Write the report of a run, from its files alone; prints where the page is."""
    folder = next((f for f in (Path(run), Path("runs") / run) if (f / "run.json").exists()), None)
    if folder is None:
        if Path(run).is_dir():
            raise BadInput(f"no run in {run}; name the folder that `attnbench run` named")
        folder = Path("runs") / find_protocol(run).title
        if not (folder / "run.json").exists():
            raise BadInput(f"no run in {folder}; start one with `attnbench run {run}`")
    typer.echo(f"report: {api.report(folder, destination)}")


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)
