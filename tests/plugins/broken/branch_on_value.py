"""Branches on a tensor's value, which no graph can hold."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class BranchOnValue(nn.Module):
    """softmax(q k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        if q.detach().abs().max() > 1e9:
            q = q.clamp(-1e9, 1e9)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


BRANCH_ON_VALUE = Variant(
    name="branch_on_value",
    core=BranchOnValue,
    source="a test",
    version=1,
    summary="Branches on a tensor's value, which no graph can hold.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
