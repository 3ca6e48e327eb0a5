"""Where a core sits: the layer, the sizes and the causality that it is built for."""

from typing import NamedTuple


class Site(NamedTuple):
    """One attention of one network, as its core needs to know it."""

    layer: int
    """Index of the block, from 0."""
    depth: int
    """Number of blocks in the network."""
    dim: int
    """Width of the residual stream."""
    heads: int
    """Number of attention heads."""
    head_dim: int
    """Width of one head's queries, keys and values."""
    tokens: int
    """Number of tokens, prefix tokens included."""
    prefix_tokens: int
    """Tokens at the front that stand for no patch (class token, registers)."""
    grid: tuple[int, int] | None
    """Rows and columns of the patches, or None where tokens have no grid."""
    causal: bool
    """Whether a token may only read itself and those before it."""
    scale: float
    """Factor on the dot products of plain attention, 1 / sqrt(head_dim)."""
