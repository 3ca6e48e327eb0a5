"""A key that stands for no token and has the value zero: attention that goes to it is attention withheld."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .attention import softmax_attention


def sink_attention(
    q: Float[Tensor, "batch head query width"],
    k: Float[Tensor, "batch head key width"],
    v: Float[Tensor, "batch head key value_width"],
    sink: Float[Tensor, "#batch #head 1 width"],
    *,
    scale: float,
    causal: bool,
    mask: Bool[Tensor, "batch key"] | None,
) -> Float[Tensor, "batch head query value_width"]:
    """Softmax attention with one more key that every query sees, whose value is zero, in one fused call.

    The sink stands in front, so that under a causal mask it is in every query's past; a query that nobody reads stands
    beside it, because the fused kernel aligns the mask at the first query and the first key.
    """
    k = torch.cat((sink.to(k.dtype).expand(*k.shape[:2], 1, -1), k), -2)
    v = F.pad(v, (0, 0, 1, 0))
    if mask is not None:
        mask = torch.cat((torch.ones_like(mask[:, :1]), mask), 1)
    if not causal:
        return softmax_attention(q, k, v, scale=scale, mask=mask)
    return softmax_attention(F.pad(q, (0, 0, 1, 0)), k, v, scale=scale, causal=True, mask=mask)[..., 1:, :]
