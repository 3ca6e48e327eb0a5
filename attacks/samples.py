"""What a shift acts on: labelled inputs with an identity each, and a model as an attack sees it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .draw import Draw

JUDGE_PASSES = 50
"""Fresh passes on which a stochastic model's outcome is judged."""


class Samples(NamedTuple):
    """Labelled inputs, each with an identity that never changes."""

    pixels: Float[Tensor, "batch channel height width"]
    """In [0, 1]."""
    labels: Int[Tensor, " batch"]
    """True classes."""
    ids: tuple[str, ...]
    """Stable identities, by which noise is drawn and outcomes are paired."""

    def rows(self, chosen: Sequence[int] | Tensor) -> "Samples":
        """Return some of the samples, in the order asked for."""
        index = torch.as_tensor(chosen, dtype=torch.long)
        return Samples(self.pixels[index], self.labels[index], tuple(self.ids[i] for i in index.tolist()))


@runtime_checkable
class Target(Protocol):
    """A model as an attack sees it: pixels in, logits out, differentiable in the pixels, its parameters frozen."""

    deterministic: bool
    """Whether the same pixels always give the same logits."""

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return logits `[batch, class]`. A stochastic model takes its noise from `draw`; the others ignore it."""
        ...
