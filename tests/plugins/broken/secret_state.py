"""Reads the layer before without saying so."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class SecretState(nn.Module):
    """softmax((q + q of the layer before) k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q if ctx.previous is None else q + ctx.previous.q
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


SECRET_STATE = Variant(
    name="secret_state",
    core=SecretState,
    source="a test",
    version=1,
    summary="Reads the layer before without saying so.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
