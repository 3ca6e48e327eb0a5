"""Learns a factor a head and says that it learns nothing."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class UntoldParameters(nn.Module):
    """softmax(f q k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.factor = nn.Parameter(torch.ones(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q * self.factor.to(q.dtype)[:, None, None]
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNTOLD_PARAMETERS = Variant(
    name="untold_parameters",
    core=UntoldParameters,
    source="a test",
    version=1,
    summary="Learns a factor a head and says that it learns nothing.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
