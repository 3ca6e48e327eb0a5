"""Tempered attention: every head learns how sharp it is."""

import torch
from torch import Tensor, nn

from attnbench.models.attention import Context, softmax_attention
from attnbench.models.site import Site
from attnbench.models.variant import Variant


class TemperedAttention(nn.Module):
    """softmax(exp(t) q k' / sqrt(d)) v with one learned t a head, which starts at 0: plain attention."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.log_sharpness = nn.Parameter(torch.zeros(site.heads))

    def _sharpened(self, q: Tensor) -> Tensor:
        return q * self.log_sharpness.exp()[:, None, None].to(q.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return softmax_attention(
            self._sharpened(q), k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask
        )

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return exp(t) scale q k'."""
        return self.site.scale * self._sharpened(q) @ k.transpose(-2, -1)


TEMPERED = Variant(
    name="tempered",
    core=TemperedAttention,
    source="an example; not from a paper",
    version=1,
    summary="Softmax attention whose heads learn their temperature.",
    formula="softmax(exp(t) q k' / sqrt(d)) v",
    family="softmax",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    extra_parameters="one a head",
    pretrained="lossless",
)
