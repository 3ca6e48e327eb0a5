"""A declared detach that does not exist: every path is open under the default settings."""

from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class IdleDetach(nn.Module):
    """softmax(q k' / sqrt(d)) v."""

    def __init__(self, site: Site, gradient: str = "stop") -> None:
        super().__init__()
        self.site = site
        self.gradient = gradient

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


IDLE_DETACH = Variant(
    name="idle_detach",
    core=IdleDetach,
    source="a test",
    version=1,
    summary="A declared detach that does not exist.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    settings={"gradient": "stop"},
    choices={"gradient": ("stop", "open")},
    detaches=("keys",),
    open_settings={"gradient": "open"},
)
