"""Attention whose weights are dot products of feature vectors: time and memory grow linearly with the tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def linear_attention(
    q: Float[Tensor, "batch head token feature"],
    k: Float[Tensor, "batch head token feature"],
    v: Float[Tensor, "batch head token value"],
    *,
    causal: bool,
    mask: Bool[Tensor, "batch token"] | None,
    eps: float | Float[Tensor, "batch #head #token 1"] = 0.0,
    floor: float = 0.0,
    chunk: int = 64,
) -> Float[Tensor, "batch head token value"]:
    """Return sum_j (q k_j') v_j / max(eps + sum_j q k_j', floor) over the visible tokens, for non-negative features.

    Sums are taken in float32 or wider, also under autocast; the result has the dtype of `v`. A query whose weights have
    a sum of nearly 0 (1e-28 in float32) is not normalised, so one that reads nothing gets 0 and a finite gradient.

    >>> one = torch.ones(1, 1, 3, 1)
    >>> v = torch.tensor([[[[2.0], [4.0], [9.0]]]])
    >>> linear_attention(one, one, v, causal=True, mask=None).flatten().tolist()
    [2.0, 3.0, 5.0]
    """
    wide = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.to(wide), k.to(wide)
        if mask is not None:
            k = torch.where(mask[:, None, :, None], k, 0)
        ones = torch.ones_like(v[..., :1], dtype=wide)
        numbers = torch.cat((v.to(wide), ones), -1)
        sums = _prefix_sums(q, k, numbers, chunk) if causal else q @ (k.transpose(-2, -1) @ numbers)
        total = (sums[..., -1:] + eps).clamp(min=floor)
        total = torch.where(total < torch.finfo(wide).tiny ** 0.75, 1, total)
        return (sums[..., :-1] / total).to(v.dtype)


def _prefix_sums(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """Return sum_{j <= i} (q_i k_j') v_j: earlier chunks through their summed k' v, the own chunk by its own matrix.

    Memory is tokens x (chunk + feature x value / chunk), where one state for each token would be tokens x feature x
    value.
    """
    tokens = q.shape[-2]
    chunk = min(chunk, tokens)
    missing = -tokens % chunk
    q, k, v = (F.pad(x, (0, 0, 0, missing)).reshape(*x.shape[:2], -1, chunk, x.shape[-1]) for x in (q, k, v))
    earlier = F.pad((k.transpose(-2, -1) @ v)[..., :-1, :, :].cumsum(-3), (0, 0, 0, 0, 1, 0))
    sums = q @ earlier + (q @ k.transpose(-2, -1)).tril() @ v
    return sums.flatten(-3, -2)[..., :tokens, :]
