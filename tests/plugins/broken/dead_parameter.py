"""A parameter that nothing reads."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class DeadParameter(nn.Module):
    """softmax(q k' / sqrt(d)) v."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.gain = nn.Parameter(torch.ones(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


DEAD_PARAMETER = Variant(
    name="dead_parameter",
    core=DeadParameter,
    source="a test",
    version=1,
    summary="A parameter that nothing reads.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
    extra_parameters="1 a head",
)
