"""Keys divided by a length that may be zero."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class ZeroOverZero(nn.Module):
    """softmax(q k' / |k|) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        k = k / k.norm(dim=-1, keepdim=True)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


ZERO_OVER_ZERO = Variant(
    name="zero_over_zero",
    core=ZeroOverZero,
    source="a test",
    version=1,
    summary="Keys divided by a length that may be zero.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
