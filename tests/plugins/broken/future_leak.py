"""A mean over all tokens under a causal mask: the past sees the future."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class FutureLeak(nn.Module):
    """softmax(c q k' / sqrt(d)) v with c the mean size of all real tokens' values."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        size = v.abs().mean(-1, keepdim=True)
        real = torch.ones_like(size) if ctx.mask is None else ctx.mask[:, None, :, None].to(size.dtype)
        q = q * (size * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


FUTURE_LEAK = Variant(
    name="future_leak",
    core=FutureLeak,
    source="a test",
    version=1,
    summary="A mean over all tokens under a causal mask.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
