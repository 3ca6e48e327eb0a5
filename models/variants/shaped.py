"""Shaped attention: attention starts as the identity and departs from it as far as the heads learn to look around."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..token_mean import token_mean
from ..variant import Variant


class ShapedAttention(nn.Module):
    """(a I + b A - c C) v with A softmax attention and C uniform attention, arXiv:2306.17759 and arXiv:2311.01906.

    a, b and c are one learned number a head, from 1, as in the skipless configuration of
    github.com/bobby-he/simplified_transformers; row i of C is uniform over the tokens that i may read, so 1 / i under a
    causal mask, as there.

    The released code draws the query weights as zeros, so that A = C and the map is I at first. Here the projections
    belong to the host and are the same for all variants, so `identity` multiplies the queries of each head by one more
    learned number, from 0: the same start, and another path from it. `drawn` has no such number and starts at
    I + A - C with the drawn queries.
    """

    def __init__(self, site: Site, start: Literal["identity", "drawn"] = "identity") -> None:
        super().__init__()
        self.site = site
        self.skip = nn.Parameter(torch.ones(site.heads))
        self.gain = nn.Parameter(torch.ones(site.heads))
        self.centre = nn.Parameter(torch.ones(site.heads))
        self.query_gain = nn.Parameter(torch.zeros(site.heads)) if start == "identity" else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if self.query_gain is not None:
            q = self.query_gain.to(q.dtype)[:, None, None] * q
        y = softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)
        skip, gain, centre = (x.to(v.dtype)[:, None, None] for x in (self.skip, self.gain, self.centre))
        return skip * v + gain * y - centre * token_mean(v, ctx.mask, self.site.causal)


SHAPED = Variant(
    name="shaped",
    core=ShapedAttention,
    source="Noci et al. 2023, arXiv:2306.17759; He and Hofmann 2024, arXiv:2311.01906; "
    "github.com/bobby-he/simplified_transformers",
    version=1,
    summary="Adds the identity to the attention map and takes the uniform one away, so a layer starts without mixing.",
    formula="(a I + b A - c C) v, A = softmax(g q k' / sqrt(d)), C uniform, a = b = c = 1 and g = 0 at first",
    family="shaped",
    attention_map="signed",
    settings={"start": "identity"},
    choices={"start": ("identity", "drawn")},
    cost="fused",
    extra_parameters="4 heads a layer with start identity, 3 heads with drawn",
    pretrained="lossy",
    caveats=(
        "The papers shape attention so that the residual branch around it can go; here the branch stays.",
        "With start identity the query and key weights receive no gradient in the very first step.",
        "The width-dependent temperature of arXiv:2306.17759 is not here: logits are scaled by 1 / sqrt(d).",
    ),
)
