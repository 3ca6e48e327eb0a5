"""A stranger's variant: softmax attention at a temperature of its own. Kept as a fixture, and shown in the README."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class SharperAttention(nn.Module):
    """softmax(sharpness q k' / sqrt(head_dim)) v."""

    def __init__(self, site: Site, sharpness: float) -> None:
        super().__init__()
        self.site = site
        self.sharpness = sharpness

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        scale = self.sharpness * self.site.scale
        return softmax_attention(q, k, v, scale=scale, causal=self.site.causal, mask=ctx.mask)


SHARPER = Variant(
    name="sharper",
    core=SharperAttention,
    source="a test",
    version=1,
    summary="Softmax attention, twice as sharp.",
    formula="softmax(sharpness q k' / sqrt(d)) v",
    family="softmax",
    attention_map="row_stochastic",
    settings={"sharpness": 2.0},
)
