"""A setting whose default is not the core's."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class OtherDefault(nn.Module):
    """softmax(f q k' / sqrt(d)) v."""

    def __init__(self, site: Site, factor: float = 1.0) -> None:
        super().__init__()
        self.site = site
        self.factor = factor

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = self.factor * q
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


OTHER_DEFAULT = Variant(
    name="other_default",
    core=OtherDefault,
    source="a test",
    version=1,
    summary="A setting whose default is not the core's.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    settings={"factor": 2.0},
)
