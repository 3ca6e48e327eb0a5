"""Softmax attention: every token reads a convex mixture of the values, weighted by exp of scaled dot products."""

from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant


class SoftmaxAttention(nn.Module):
    """softmax(q k' / sqrt(head_dim)) v, equation 1 of arXiv:1706.03762."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale q k'."""
        return self.site.scale * q @ k.transpose(-2, -1)


SOFTMAX = Variant(
    name="softmax",
    core=SoftmaxAttention,
    source="Vaswani et al. 2017, arXiv:1706.03762, equation 1",
    version=1,
    summary="The reference: every token reads a convex mixture of the values, weighted by exp of scaled dot products.",
    formula="softmax(q k' / sqrt(d)) v",
    family="softmax",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    pretrained="lossless",
)
