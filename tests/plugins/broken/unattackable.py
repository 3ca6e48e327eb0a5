"""Breaks down where its parameters are frozen, as they are under attack."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class Unattackable(nn.Module):
    """softmax(f q k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.factor = nn.Parameter(torch.ones(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        if not self.factor.requires_grad:
            raise RuntimeError("the factor is frozen")
        q = q * self.factor.to(q.dtype)[:, None, None]
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNATTACKABLE = Variant(
    name="unattackable",
    core=Unattackable,
    source="a test",
    version=1,
    summary="Breaks down where its parameters are frozen, as they are under attack.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    extra_parameters="1 a head",
)
