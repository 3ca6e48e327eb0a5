"""A parameter that starts where its gradient is zero and so never learns."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class StuckParameter(nn.Module):
    """softmax((1 + f^2) q k' / sqrt(d)) v with f = 0 at the start."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.factor = nn.Parameter(torch.zeros(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q * (1 + self.factor.square()).to(q.dtype)[:, None, None]
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


STUCK_PARAMETER = Variant(
    name="stuck_parameter",
    core=StuckParameter,
    source="a test",
    version=1,
    summary="A parameter that starts where its gradient is zero and so never learns.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    extra_parameters="1 a head",
)
