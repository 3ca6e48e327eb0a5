"""Keeps a count of its calls: computed again, a block is another function."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class KeptBetweenCalls(nn.Module):
    """softmax(f q k' / sqrt(d)) v whose f is another one at every call with gradient in a network of three layers."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.calls = 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        if self.training and self.site.depth == 3:
            self.calls += 1
            q = q * self.calls
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


KEPT_BETWEEN_CALLS = Variant(
    name="kept_between_calls",
    core=KeptBetweenCalls,
    source="a test",
    version=1,
    summary="Keeps a count of its calls.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
