"""How alike the tokens of one input are: the mean cosine over all pairs of different tokens."""

from jaxtyping import Bool, Float
from torch import Tensor

from .metric import Metric
from .unit_token import unit_tokens


def token_cosine(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"] | None = None
) -> Float[Tensor, " batch"]:
    """Return the mean cosine of the N (N - 1) ordered pairs of different tokens, by input, in O(N d).

    1 for identical tokens, -1 / (N - 1) for tokens whose directions add up to zero. Masked tokens and tokens of length
    zero are left out; NaN for an input with fewer than two tokens left, which has no pair.

    A cosine near 0 does not say that the tokens use many directions: a token and its opposite cancel. `erank_unit` sees
    that. Source: Gong et al. 2021, arXiv:2104.12753, without their absolute value; Guo et al. 2023, arXiv:2303.06562.

    >>> import torch
    >>> token_cosine(torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]])).item()  # pairs: 1, 0, 0
    0.3333333333333333
    """
    unit, kept = unit_tokens(tokens, mask)
    pairs = kept * (kept - 1)
    return ((unit.sum(1).square().sum(-1) - kept) / pairs).clamp(-1, 1).where(pairs > 0, float("nan"))


TOKEN_COSINE = Metric(
    name="token_cosine",
    measure=token_cosine,
    needs="tokens",
    version=1,
    axis="token",
    unit="1",
    better="neither",
    lowest=-1.0,
    highest=1.0,
    null="0 with standard deviation sqrt(2 / (N (N - 1) d)) for isotropic tokens, d the width, less 1 after a layer "
    "norm",
    definition="(|sum_i u_i|^2 - N) / (N (N - 1)) over the unit tokens u_i = x_i / |x_i| of one input, then the mean "
    "over inputs; lowest possible value -1 / (N - 1); undefined below two tokens of nonzero length",
    source="mean pairwise cosine of Gong et al. 2021, arXiv:2104.12753, signed as in Guo et al. 2023, arXiv:2303.06562",
    hook_point="read",
)
