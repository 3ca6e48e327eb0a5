"""A metric without gradient that the declaration keeps quiet about."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class UndeclaredDetach(nn.Module):
    """softmax((q * m) k' / sqrt(d)) v with m the size of the values, detached."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        m = v.detach().abs().mean(-1, keepdim=True)
        q = q * m
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNDECLARED_DETACH = Variant(
    name="undeclared_detach",
    core=UndeclaredDetach,
    source="a test",
    version=1,
    summary="A metric without gradient that the declaration keeps quiet about.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
