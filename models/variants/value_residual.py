"""Value residual: every layer reads a mixture of its own values and those of the first layer."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant


class ValueResidualAttention(nn.Module):
    """A (a v_first + b v) with A softmax attention, ResFormer, arXiv:2410.17897.

    `constant` has a = b = 1/2, as the released code; `learned` starts there and learns the two numbers of each layer
    freely (the learnable ResFormer; how the paper starts it was not read at its source). The paper's sparse form, which
    mixes in some layers only, is not here. Layer 0 mixes nothing and attends plainly.
    """

    def __init__(self, site: Site, mix: Literal["constant", "learned"] = "constant") -> None:
        super().__init__()
        self.site = site
        self.weight = nn.Parameter(torch.tensor([0.5, 0.5])) if mix == "learned" and site.layer > 0 else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if self.site.layer > 0 and ctx.first is not None:
            a, b = (0.5, 0.5) if self.weight is None else self.weight.to(v.dtype)
            v = a * ctx.first.v + b * v
        return softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


VALUE_RESIDUAL = Variant(
    name="value_residual",
    core=ValueResidualAttention,
    source="Zhou et al. 2025, ResFormer, arXiv:2410.17897; github.com/Zcchill/Value-Residual-Learning",
    version=1,
    summary="Mixes the first layer's values into the values that every later layer attends to.",
    formula="A (a v_first + b v), A = softmax(q k' / sqrt(d))",
    family="value_residual",
    attention_map="nonnegative",
    settings={"mix": "constant"},
    choices={"mix": ("constant", "learned")},
    layer_state=("first",),
    cost="fused",
    extra_parameters="2 a layer after the first with mix learned, none with constant",
    pretrained="lossy",
    caveats=(
        "Rows of the map on the layer's own values sum to b, and those of the map on the first values to a.",
        "The paper trains language models; it makes no claim of robustness.",
    ),
)
