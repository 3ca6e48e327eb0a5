"""The directions of the tokens, their lengths removed: what token cosine and effective rank are measured on."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor


class UnitTokens(NamedTuple):
    """Tokens of length 1, in float64."""

    tokens: Float[Tensor, "batch token dim"]
    """Unit tokens; rows of zeros stand for tokens that do not count, and drop out of every sum and Gram matrix."""
    kept: Float[Tensor, " batch"]
    """Number of tokens that count, by input."""


def unit_tokens(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"] | None = None
) -> UnitTokens:
    """Divide each token by its length.

    Masked tokens do not count, and neither do tokens of length zero: they have no direction, and adding a small number
    to the length would invent one. The conversion to float64 comes before the lengths, because identical bfloat16
    tokens whose lengths are rounded to bfloat16 read a cosine of .996.
    """
    wide = tokens.double()
    length = wide.norm(dim=-1)
    counts = length != 0
    if mask is not None:
        counts = counts & mask
    unit = wide / length.where(counts, 1.0)[..., None]
    return UnitTokens(unit.where(counts[..., None], 0.0), counts.sum(-1).double())
