"""Initial values by name: every parameter is drawn from hash(training seed, parameter name).

Nothing depends on the order in which modules are built, so networks of different variants start from the same values
wherever they share a parameter, and a variant's own parameters disturb nobody else's.
"""

import hashlib
from typing import Protocol, runtime_checkable

import torch
from torch import nn


def generator_for(seed: int, name: str) -> torch.Generator:
    """Return a generator that depends on the training seed and the name only."""
    digest = hashlib.sha256(f"initial value\0{seed}\0{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@runtime_checkable
class DrawsInitialValues(Protocol):
    """A module that sets its own tensors, each from the generator that its full name gives."""

    def draw(self, generators: "Generators") -> None:
        """Fill the module's tensors in place."""
        ...


class Generators:
    """Generators for the tensors of one module, by their local names."""

    def __init__(self, seed: int, prefix: str) -> None:
        self.seed = seed
        self.prefix = prefix

    def __call__(self, name: str) -> torch.Generator:
        """Return the generator of the tensor `name` of this module."""
        return generator_for(self.seed, f"{self.prefix}.{name}" if self.prefix else name)


@torch.no_grad()
def draw_initial_values(model: nn.Module, seed: int) -> None:
    """Draw every linear and convolution weight (Xavier uniform, zero bias) and let the other modules draw their own.

    Tensors of modules that draw nothing keep the constants they were built with (norms: one and zero). Weights are
    drawn on the CPU in float32 whatever the model's device, so a seed means the same everywhere.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, DrawsInitialValues):
            module.draw(Generators(seed, prefix))
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            name = f"{prefix}.weight" if prefix else "weight"
            weight = torch.empty(module.weight.shape)
            nn.init.xavier_uniform_(weight.flatten(1), generator=generator_for(seed, name))
            module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.zero_()
