"""A matrix of tokens x tokens, declared as fused."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class QuadraticMemory(nn.Module):
    """softmax(q k' / sqrt(d)) v in explicit matrices."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        logits = self.site.scale * q @ k.transpose(-2, -1)
        hidden = torch.zeros_like(logits, dtype=torch.bool)
        if self.site.causal:
            hidden = hidden | torch.ones_like(hidden).triu(1)
        if ctx.mask is not None:
            hidden = hidden | ~ctx.mask[:, None, None, :]
        return logits.masked_fill(hidden, -torch.inf).softmax(-1) @ v


QUADRATIC_MEMORY = Variant(
    name="quadratic_memory",
    core=QuadraticMemory,
    source="a test",
    version=1,
    summary="A matrix of tokens x tokens, declared as fused.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
