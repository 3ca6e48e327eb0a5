"""An output with its heads and tokens exchanged."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class WrongShape(nn.Module):
    """softmax(q k' / sqrt(d)) v, [batch, token, head, head_dim]."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        y = softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)
        return y.transpose(1, 2)


WRONG_SHAPE = Variant(
    name="wrong_shape",
    core=WrongShape,
    source="a test",
    version=1,
    summary="An output with its heads and tokens exchanged.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
