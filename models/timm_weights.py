"""Weights that enter a timm model: strictly by name and shape, with the few exceptions that the caller asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .position import RESAMPLINGS, Resampling, resampled, square_grid

Head = Literal["keep", "new"]
"""Whether a file's head is loaded like all the rest, or left out in favour of one with its own initial values."""
SHOWN = 6
"""Names that a message lists before it only counts."""


class Entry(NamedTuple):
    """What became of a file's head and position table."""

    head: str
    """`kept` or `new`."""
    position: str
    """`none`, `kept`, or the two grids and the rule between them."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; ValueError where it is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"weights {path} cannot be read ({error}); a safetensors file with timm's names is allowed: write one with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        ) from None


def fetched_weights(name: str) -> dict[str, Tensor]:
    """Return the weights that timm publishes for a model, at the image size and with the head that they have there.

    Raises OSError where they cannot be had, as without a network.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"timm:{name} was asked for with pretrained weights, and timm could not get them ({why}); connect to the "
            "network, or give a local safetensors file as `weights`"
        ) from error


def load_strictly(
    model: Any, given: Mapping[str, Tensor], origin: str, head: Head, resampling: Resampling | None
) -> Entry:
    """Fill a timm model with tensors under timm's names; ValueError lists all that is missing, unknown or misshapen.

    With `head="new"` the tensors of the head are left out on both sides. A position table for another grid is
    resampled by the rule that is asked for; asking for none is an error that names them.
    """
    wanted = model.state_dict()
    own = {name for name in wanted if name.startswith(("head.", "head_dist."))} if head == "new" else set()
    state = {n: t for n, t in given.items() if not (head == "new" and n.startswith(("head.", "head_dist.")))}
    state, position = _with_table_for(model, state, origin, resampling)
    faults = _faults(state, {name: tensor for name, tensor in wanted.items() if name not in own})
    if faults:
        hint = "set head='new' for a head with its own initial values; " if "head." in faults and head != "new" else ""
        raise ValueError(
            f"{origin} does not fit this model: it {faults}; {hint}allowed are exactly timm's tensors at these sizes, "
            "so give the options (depth, embed_dim, ...) that the weights were made with"
        )
    model.load_state_dict({**state, **{name: wanted[name] for name in own}}, strict=True)
    return Entry("new" if head == "new" else "kept", position)


def _with_table_for(
    model: Any, state: dict[str, Tensor], origin: str, resampling: Resampling | None
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors with a position table for the model's grid, and what was done to it."""
    if model.pos_embed is None or "pos_embed" not in state:
        return state, "none"
    table, new = state["pos_embed"], tuple(model.patch_embed.grid_size)
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    if table.ndim != 3 or table.shape[1] == model.pos_embed.shape[1]:
        return state, "kept"
    old = square_grid(table.shape[1] - prefix)
    grids = f"{old[0]} x {old[1]} -> {new[0]} x {new[1]}"
    if resampling is None:
        raise ValueError(
            f"{origin} has a position table for another grid ({grids}), and no rule to resample it was given; set "
            f"resampling to one of {', '.join(RESAMPLINGS)}, the one that the weights were made for (timm takes "
            "antialiased when it loads)"
        )
    return {**state, "pos_embed": resampled(table, prefix, old, new, resampling)}, f"{grids}, {resampling}"


def _faults(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what keeps tensors from being loaded, an empty string where nothing does."""
    shapes = [
        f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"
        for name in sorted(given.keys() & wanted.keys())
        if given[name].shape != wanted[name].shape
    ]
    parts = {
        "lacks": sorted(wanted.keys() - given.keys()),
        "holds what the model does not have:": sorted(given.keys() - wanted.keys()),
        "differs in shape:": shapes,
    }
    return "; ".join(f"{what} {_some(names)}" for what, names in parts.items() if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
