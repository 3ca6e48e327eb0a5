"""The mean over the tokens that a token may read: what uniform attention would return."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def token_mean(
    x: Float[Tensor, "batch *head token dim"], mask: Bool[Tensor, "batch token"] | None, causal: bool
) -> Float[Tensor, "batch *head #token dim"]:
    """Mean over the real tokens, one for all; if `causal`, over those up to and including each token.

    Zero where no real token has come yet. Sums are taken in float32 or wider.

    >>> token_mean(torch.tensor([[[1.0], [3.0], [8.0]]]), None, True).flatten().tolist()
    [1.0, 2.0, 4.0]
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if mask is None:
        real = torch.ones(x.shape[-2], 1, dtype=wide, device=x.device)
    else:
        real = mask.view(mask.shape[0], *[1] * (x.ndim - 3), mask.shape[1], 1).to(wide)
        x = torch.where(real > 0, x, 0)
    if causal:
        mean = x.cumsum(-2, dtype=wide) / real.cumsum(-2).clamp(min=1)
    else:
        mean = x.sum(-2, keepdim=True, dtype=wide) / real.sum(-2, keepdim=True).clamp(min=1)
    return mean.to(x.dtype)
