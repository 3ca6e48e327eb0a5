"""Dropout from the global generator: nobody can repeat a training."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class TrainingNoise(nn.Module):
    """softmax(q k' / sqrt(d)) v with dropped coordinates of the queries in training."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        q = torch.dropout(q, 0.1, self.training)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


TRAINING_NOISE = Variant(
    name="training_noise",
    core=TrainingNoise,
    source="a test",
    version=1,
    summary="Dropout from the global generator.",
    formula="broken",
    family="broken",
    attention_map="row_stochastic",
    cost="fused",
)
