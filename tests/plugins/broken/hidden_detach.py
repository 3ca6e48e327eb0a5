"""A gradient that a custom backward pass swallows: the forward pass is softmax attention."""

from typing import Any

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class Swallowed(torch.autograd.Function):
    """The identity, with a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient[0])


class HiddenDetach(nn.Module):
    """softmax(q k' / sqrt(d)) v whose keys get no gradient."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        k = Swallowed.apply(k)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


HIDDEN_DETACH = Variant(
    name="hidden_detach",
    core=HiddenDetach,
    source="a test",
    version=1,
    summary="A gradient that a custom backward pass swallows.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
