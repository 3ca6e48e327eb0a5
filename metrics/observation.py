"""What one pass over some inputs showed: the raw material of every metric."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


class Observation(NamedTuple):
    """What one pass over some inputs showed."""

    logits: Float[Tensor, "passes batch class"]
    """One pass for a deterministic model, at least 50 for a stochastic one."""
    targets: Int[Tensor, " batch"]
    """True classes."""
    hidden: Mapping[tuple[str, int], Float[Tensor, "batch token dim"]]
    """Token states by hook point and layer, of the first pass."""
    mask: Bool[Tensor, "batch token"] | None = None
    """True where a token counts; None where all do."""
