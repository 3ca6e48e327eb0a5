"""`attnbench doctor`: whether this machine can run attnbench, and what is odd about it."""

import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console

from ...results.provenance import provenance
from ..catalog import open_catalog
from ..error import AttnbenchError
from ..protocol import builtin_protocols, read_protocol

NEEDED = (
    "torch",
    "torchvision",
    "timm",
    "torchattacks",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
    "seaborn",
)


class Finding(NamedTuple):
    """One thing that was looked at."""

    verdict: Literal["ok", "note", "fault"]
    """Whether something has to be done."""
    what: str
    """What was looked at and found."""
    advice: str = ""
    """What to do."""


def _packages() -> list[Finding]:
    found = []
    for package in NEEDED:
        try:
            found.append(Finding("ok", f"{package} {metadata.version(package)}"))
        except metadata.PackageNotFoundError:
            found.append(Finding("fault", f"{package} is not installed", "pip install attnbench"))
    return found


def _torchattacks() -> list[Finding]:
    try:
        requests = metadata.version("requests")
    except metadata.PackageNotFoundError:
        return []
    old = tuple(int(part) for part in requests.split(".")[:2] if part.isdigit()) < (2, 32)
    advice = "torchattacks asks for requests 2.25; packages that need a newer one (datasets, jupyterlab) go elsewhere"
    return [Finding("note" if old else "ok", f"requests {requests}", advice if old else "")]


def _catalog() -> list[Finding]:
    try:
        catalog = open_catalog()
        for path in builtin_protocols().values():
            read_protocol(path)
    except AttnbenchError as error:
        return [Finding("fault", str(error))]
    counts = ", ".join(f"{len(entries)} {kind}s" for kind, entries in catalog.found.items())
    broken = [Finding("fault", f"plugin {reason}", "mend or uninstall it") for reason in catalog.broken]
    return [Finding("ok", f"catalogue: {counts}, {len(builtin_protocols())} protocols"), *broken]


def _machine() -> list[Finding]:
    here = provenance(1, "cpu")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    disk = Finding("ok" if free > 1 else "fault", f"{free:.1f} GiB free here", "" if free > 1 else "free some space")
    writable = os.access(Path.cwd(), os.W_OK)
    place = Finding(
        "ok" if writable else "note", f"folder {Path.cwd()}", "" if writable else "not writable: give --out"
    )
    python = Finding("ok" if sys.version_info >= (3, 11) else "fault", f"Python {here.python}")
    return [python, Finding("ok", f"{here.processor}, {here.system}"), disk, place]


def _torch() -> list[Finding]:
    try:
        import torch
        import torchvision

        x = torch.ones(2, 2)
        works = bool((x @ x == 2).all()) and bool(torchvision.__version__)
    except Exception as error:
        fix = "install torch and torchvision releases that belong together"
        return [Finding("fault", f"torch or torchvision does not work: {error}", fix)]
    cuda = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
    return [Finding("ok" if works else "fault", f"torch computes, {cuda}")]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check this machine: packages, plugins, protocols, disk. Exit 1 where something has to be mended."""
    findings = [*_machine(), *_packages(), *_torchattacks(), *_torch(), *_catalog()]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        console = Console(highlight=False)
        for finding in findings:
            advice = f": {finding.advice}" if finding.advice else ""
            console.print(f"{finding.verdict:5} {finding.what}{advice}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if any(finding.verdict == "fault" for finding in findings) else 0)


def attach(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)
