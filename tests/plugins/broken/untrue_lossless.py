"""Sharper than softmax, declared as the same function."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class UntrueLossless(nn.Module):
    """softmax(2 q k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=2 * self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNTRUE_LOSSLESS = Variant(
    name="untrue_lossless",
    core=UntrueLossless,
    source="a test",
    version=1,
    summary="Sharper than softmax, declared as the same function.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    pretrained="lossless",
)
