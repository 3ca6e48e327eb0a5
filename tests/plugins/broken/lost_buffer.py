"""A drawn quantity that the weights file does not hold."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.initial_value import Generators
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class LostBuffer(nn.Module):
    """softmax((q * m) k' / sqrt(d)) v with a drawn m that is not persistent."""

    stretch: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.register_buffer("stretch", torch.ones(site.head_dim), persistent=False)

    def draw(self, generators: Generators) -> None:
        self.stretch.copy_(torch.rand(self.stretch.shape, generator=generators("stretch")))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q * self.stretch
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


LOST_BUFFER = Variant(
    name="lost_buffer",
    core=LostBuffer,
    source="a test",
    version=1,
    summary="A drawn quantity that the weights file does not hold.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
