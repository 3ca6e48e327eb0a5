"""Cosine attention: only the angle between query and key counts, at a temperature that each head learns."""

from math import log

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..direction import direction
from ..site import Site
from ..variant import Variant

LARGEST = log(100)
"""Upper bound of the logarithm of 1 / tau."""


class CosineAttention(nn.Module):
    """softmax(cos(q, k) / tau) v, scaled cosine attention of Swin Transformer V2, arXiv:2111.09883.

    Each head learns the logarithm of 1 / tau, which starts at ln 10 and acts up to ln 100 (tau no smaller than 0.01);
    beyond that bound its gradient is zero. Constants as in the ports of timm and torchvision. The paper's continuous
    position bias on the logits belongs to its windows and is not here. A vector of length 0 has cosine 0 to all others.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.log_sharpness = nn.Parameter(torch.full((site.heads, 1, 1), log(10)))

    def _sharpened(self, q: Tensor) -> Tensor:
        return self.log_sharpness.clamp(max=LARGEST).exp().to(q.dtype) * direction(q)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q, k = self._sharpened(q), direction(k)
        return softmax_attention(q, k, v, scale=1.0, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return cos(q, k) / tau."""
        return self._sharpened(q) @ direction(k).transpose(-2, -1)


COSINE = Variant(
    name="cosine",
    core=CosineAttention,
    source="Liu et al. 2021, Swin Transformer V2, arXiv:2111.09883, scaled cosine attention",
    version=1,
    summary="Compares directions alone, so logits are bounded, and lets each head learn its temperature.",
    formula="softmax(q k' / (tau |q| |k|)) v, tau learned for each head, at least 0.01",
    family="key_norm",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    caveats=("A head at tau 0.01 has a saturated softmax, which hides gradient from an attack.",),
    extra_parameters="1 temperature for each head",
    pretrained="lossy",
)
