"""Networks on disk: weights as safetensors, never as code."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .error import BadInput

SHOWN = 6
"""Names that a message lists before it only counts."""


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a safetensors file."""
    return save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors; a damaged file raises BadInput."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read ({error}); delete it and run the same command again") from None


def load_weights(
    model: nn.Module, path: Path, fix: str = "delete the file and run the same command again"
) -> dict[str, Tensor]:
    """Fill a network from a file and return its tensors; names or shapes that differ raise BadInput."""
    given = load_tensors(path)
    wanted = model.state_dict()
    parts = {
        "lacks": sorted(wanted.keys() - given.keys()),
        "holds what the network does not have:": sorted(given.keys() - wanted.keys()),
        "differs in shape:": [
            f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if given[name].shape != wanted[name].shape
        ],
    }
    parts["holds numbers of another kind:"] = [
        f"{name} {str(given[name].dtype).removeprefix('torch.')}"
        for name in sorted(wanted.keys() & given.keys())
        if given[name].is_floating_point() != wanted[name].is_floating_point() or given[name].is_complex()
    ]
    faults = [f"{what} {_some(names)}" for what, names in parts.items() if names]
    if faults:
        raise BadInput(f"{path} {'; '.join(faults)}; {fix}")
    model.load_state_dict(given)
    return given


def _some(names: list[str]) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
