"""L2 attention: every token reads the values of the keys that lie nearest to its query."""

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant


class L2Attention(nn.Module):
    """softmax(-|q - k|^2 / sqrt(d)) v, L2 self-attention of arXiv:2006.04710 with queries and keys left untied.

    The paper's Lipschitz bound needs tied queries and keys and a further factor on the values; neither is here, so this
    is the kernel without the guarantee.

    |q|^2 is the same along a row and cancels; the rest, 2 q k' - |k|^2, is the dot product of [2 q, 1] and [k, -|k|^2].
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q = torch.cat((2 * q, torch.ones_like(q[..., :1])), -1)
        k = torch.cat((k, -k.square().sum(-1, keepdim=True)), -1)
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return -scale |q - k|^2."""
        squares = q.square().sum(-1)[..., :, None] + k.square().sum(-1)[..., None, :]
        return self.site.scale * (2 * q @ k.transpose(-2, -1) - squares)


L2 = Variant(
    name="l2",
    core=L2Attention,
    source="Kim, Papamakarios and Mnih 2021, arXiv:2006.04710, L2 self-attention, untied",
    version=1,
    summary="Compares queries and keys by squared distance, not dot product, so large keys attract nobody by size.",
    formula="softmax(-|q - k|^2 / sqrt(d)) v",
    family="l2",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    pretrained="lossy",
)
