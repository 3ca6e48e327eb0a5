"""Position-aware attention scaling: logits are damped by a learned factor for each pair of places."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..initial_value import Generators
from ..site import Site
from ..variant import Variant
from ..visibility import softmax_over, visible_keys


class PositionAwareScalingAttention(nn.Module):
    """softmax((q k' / sqrt(d)) * sigmoid(W)) v with W learned, heads x tokens x tokens; PAAS of RVT, arXiv:2105.07926.

    The released code (github.com/vtddggg/Robust-Vision-Transformer) leaves W as allocated, without initial values, and
    scales so in the first blocks only (10, 5 and 5 of its three sizes). Here W is drawn normal with standard deviation
    0.02 and every block has one; each factor starts near sigmoid(0) = 1/2, so logits start at half their size.

    `keys`: `plain`, or `unit`, which divides every key by its length, as the re-implementation for comparison in
    github.com/aaronhan223/robust_transformer does (arXiv:2210.05794).
    """

    def __init__(self, site: Site, keys: Literal["plain", "unit"] = "plain") -> None:
        super().__init__()
        self.site = site
        self.keys = keys
        self.weight = nn.Parameter(torch.zeros(site.heads, site.tokens, site.tokens))

    def draw(self, generators: Generators) -> None:
        """Draw the factors' logits."""
        self.weight.copy_(0.02 * torch.randn(self.weight.shape, generator=generators("weight")))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if q.shape[-2] != self.site.tokens:
            raise ValueError(
                f"paas on {q.shape[-2]} tokens: it has one factor for each pair of places; allowed: "
                f"{self.site.tokens} tokens, for which it was built; use inputs of one size"
            )
        logits = self.logits(q, k, v, ctx)
        return softmax_over(logits, visible_keys(q, ctx, self.site.causal)).to(v.dtype) @ v

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale q k' times the factors."""
        if self.keys == "unit":
            length = torch.linalg.vector_norm(k, dim=-1, keepdim=True)
            k = k / torch.where(length == 0, 1, length)
        return self.site.scale * q @ k.transpose(-2, -1) * torch.sigmoid(self.weight.to(q.dtype))


PAAS = Variant(
    name="paas",
    core=PositionAwareScalingAttention,
    source="Mao et al. 2022, RVT, arXiv:2105.07926; github.com/vtddggg/Robust-Vision-Transformer",
    version=1,
    summary="Multiplies every logit by a learned factor between 0 and 1 for its pair of places.",
    formula="softmax((q k' / sqrt(d)) * sigmoid(W)) v, W one number for each head and pair of places",
    family="paas",
    attention_map="row_stochastic",
    settings={"keys": "plain"},
    choices={"keys": ("plain", "unit")},
    equivariant=False,
    logits=True,
    cost="matrix",
    extra_parameters="heads x tokens x tokens a layer",
    pretrained="lossy",
    caveats=(
        "It is tied to one number of tokens.",
        "It starts with logits of half their size: compare with a softmax of the same logit spread.",
        "RVT's published robustness is that of a whole network (convolutional stem, pooling, no class token, training "
        "on patches); this is its attention alone.",
    ),
)
