"""Rows that add up to less than 1, declared as row-stochastic."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class WrongMap(nn.Module):
    """softmax(q k' / sqrt(d)) v / 2."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask) / 2


WRONG_MAP = Variant(
    name="wrong_map",
    core=WrongMap,
    source="a test",
    version=1,
    summary="Rows that add up to less than 1, declared as row-stochastic.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
