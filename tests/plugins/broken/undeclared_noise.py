"""Noise drawn in the forward pass: nobody can repeat it."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class UndeclaredNoise(nn.Module):
    """softmax(q k' / sqrt(d)) v with jittered queries."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = q + 1e-3 * torch.randn_like(q)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


UNDECLARED_NOISE = Variant(
    name="undeclared_noise",
    core=UndeclaredNoise,
    source="a test",
    version=1,
    summary="Noise drawn in the forward pass.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
