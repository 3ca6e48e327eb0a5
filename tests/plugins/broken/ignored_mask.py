"""Masked tokens are read like real ones."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class IgnoredMask(nn.Module):
    """softmax(q k' / sqrt(d)) v over all tokens."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal)


IGNORED_MASK = Variant(
    name="ignored_mask",
    core=IgnoredMask,
    source="a test",
    version=1,
    summary="Masked tokens are read like real ones.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
