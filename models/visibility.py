"""Which keys a query may read, and the softmax over those keys, for attention maps that are formed in full."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attention import Context


def visible_keys(
    q: Float[Tensor, "batch head query width"], ctx: Context, causal: bool
) -> Bool[Tensor, "#batch 1 query key"]:
    """Return True where a query may read a key: the key is real and, if `causal`, does not come later."""
    tokens = q.shape[-2]
    seen = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=q.device)
    if causal:
        seen = seen.tril()
    return seen if ctx.mask is None else seen & ctx.mask[:, None, None, :]


def softmax_over(
    logits: Float[Tensor, "batch head query key"], seen: Bool[Tensor, "#batch 1 query key"]
) -> Float[Tensor, "batch head query key"]:
    """Softmax over the visible keys; zero elsewhere, and along the whole row of a query that sees nothing."""
    return logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(-1) * seen
