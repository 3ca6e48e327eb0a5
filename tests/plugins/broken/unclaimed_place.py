"""A bias by distance, declared as equivariant."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class UnclaimedPlace(nn.Module):
    """softmax(q k' / sqrt(d)) v with queries that grow from token to token."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        place = torch.arange(q.shape[-2], device=q.device).to(q.dtype)
        q = q * (1 + place / 10)[:, None]
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNCLAIMED_PLACE = Variant(
    name="unclaimed_place",
    core=UnclaimedPlace,
    source="a test",
    version=1,
    summary="A bias by distance, declared as equivariant.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
