"""Randomness that a network asks for: it declares what it needs, and its host draws it for each sample and pass.

A network holds no generator. Under gradient checkpointing a generator would be advanced twice and give silently wrong
gradients, and whole-graph compilation refuses it; a tensor that is passed in survives both.
"""

from typing import Literal, NamedTuple


class Noise(NamedTuple):
    """One tensor of noise for each sample of a batch."""

    name: str
    """Name within its core or block; the network puts the block's index before it (`2.metric`)."""
    shape: tuple[int, ...]
    """Shape for one sample."""
    distribution: Literal["uniform", "normal"]
    """`uniform` on [0, 1) or standard `normal`."""
    when: Literal["train", "always"]
    """`train`: only while training; `always`: at inference too, which makes the network stochastic."""
