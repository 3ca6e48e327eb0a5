"""A mean over the batch: what a sample becomes depends on its company."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class BatchMean(nn.Module):
    """softmax((1 + c) q k' / sqrt(d)) v with c the batch's mean square of each token's query."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q * (1 + q.square().mean((0, 3), keepdim=True))
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


BATCH_MEAN = Variant(
    name="batch_mean",
    core=BatchMean,
    source="a test",
    version=1,
    summary="A mean over the batch.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
