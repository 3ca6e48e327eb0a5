"""Networks on disk: weights as safetensors, never as code."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .error import BadInput


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a safetensors file."""
    return save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors; a damaged file raises BadInput."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read ({error}); delete it and run the same command again") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a network from a file; names or shapes that differ raise BadInput naming the first."""
    given = load_tensors(path)
    wanted = model.state_dict()
    fix = "delete the file and run the same command again, or give the weights of this network"
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given:
            raise BadInput(f"{path} lacks '{name}', which the network needs; {fix}")
        if name not in wanted:
            raise BadInput(f"{path} holds '{name}', which the network does not have; {fix}")
        if given[name].shape != wanted[name].shape:
            raise BadInput(
                f"{path}: '{name}' has shape {list(given[name].shape)}, "
                f"the network needs {list(wanted[name].shape)}; {fix}"
            )
    model.load_state_dict(given)
