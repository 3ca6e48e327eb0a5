"""What every command that plans may be asked for: its arguments and options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import api

Protocol = Annotated[str, typer.Argument(help="A protocol: its name, name-version, or the path of a .toml file.")]
Variant = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        help="Add rows: names, settings in parentheses, globs, @file, or a .py file that declares them.",
        envvar="ATTNBENCH_VARIANT",
    ),
]
Model = Annotated[
    list[str] | None,
    typer.Option("--model", help="Add a whole network, used as it is: FILE.py:FUNCTION, or NAME=FILE.py:FUNCTION."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", help="Use weights instead of training: ROW@SEED=FILE.safetensors, or ROW@SEED/FOLD=FILE."
    ),
]
Swap = Annotated[
    list[str] | None, typer.Option("--swap", help="Put the attention of each row on the weights of the other: A:B.")
]
Attack = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help="Add attacks; the report shows the worst case of all: names, settings in parentheses, torchattacks:NAME.",
    ),
]
Backbone = Annotated[
    str,
    typer.Option(
        "--backbone", help="Another network: 'timm:NAME(option=value,weights=FILE,...)' or 'vit(dim=32,...)'."
    ),
]
Only = Annotated[list[str] | None, typer.Option("--only", help="Work on these rows only; commas, globs.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first N test samples.", envvar="ATTNBENCH_LIMIT")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run [runs/PROTOCOL].", envvar="ATTNBENCH_OUT")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def asked_for(
    protocol: str,
    variant: Sequence[str] | None,
    model: Sequence[str] | None,
    weights: Sequence[str] | None,
    swap: Sequence[str] | None,
    attack: Sequence[str] | None,
    backbone: str,
    only: Sequence[str] | None,
    limit: int | None,
    out: Path | None,
) -> api.Asked:
    """Gather the options that every planning command shares."""
    return api.Asked(
        protocol,
        variants=tuple(variant or ()),
        only=tuple(only or ()),
        models=tuple(model or ()),
        weights=tuple(weights or ()),
        swaps=tuple(swap or ()),
        attacks=tuple(attack or ()),
        backbone=backbone,
        limit=limit,
        out=out,
    )
