"""Computed in float32 whatever comes in."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class HardFloat32(nn.Module):
    """softmax(q k' / sqrt(d)) v in float32."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q, k, v = q.float(), k.float(), v.float()
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


HARD_FLOAT32 = Variant(
    name="hard_float32",
    core=HardFloat32,
    source="a test",
    version=1,
    summary="Computed in float32 whatever comes in.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
