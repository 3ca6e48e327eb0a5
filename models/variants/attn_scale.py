"""AttnScale: each head learns how far its attention map stands out from the uniform one."""

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..token_mean import token_mean
from ..variant import Variant


class AttnScaleAttention(nn.Module):
    """(C + (1 + w_h) (A - C)) v with A softmax attention and C uniform attention, arXiv:2203.05962.

    C = 11'/N is the map's low-pass part, A - C its high-pass part, w one number for each head, from 0, as in the
    released code. Computed as (1 + w) A v - w C v, C v being the mean of the values. Where the site is causal, row i of
    C is uniform over the i tokens up to it; paper and code are about vision transformers, which see all tokens.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.weight = nn.Parameter(torch.zeros(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        y = softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)
        weight = self.weight.to(y.dtype)[:, None, None]
        return y + weight * (y - token_mean(v, ctx.mask, self.site.causal))


ATTN_SCALE = Variant(
    name="attn_scale",
    core=AttnScaleAttention,
    source="Wang et al. 2022, AttnScale, arXiv:2203.05962; github.com/VITA-Group/ViT-Anti-Oversmoothing",
    version=1,
    summary="Scales, by a learned factor a head, the part of the attention map that is not uniform.",
    formula="(C + (1 + w) (A - C)) v, C = 11'/N, A = softmax(q k' / sqrt(d)), w one number a head",
    family="frequency_scale",
    attention_map="signed",
    causal="prefix",
    cost="fused",
    extra_parameters="heads a layer",
    pretrained="lossless",
    caveats=("The paper's gains are on clean accuracy of deep vision transformers; it makes no claim of robustness.",),
)
