"""Gated attention: every token decides how much of what it has read it lets through."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Reported, Variant


class GatedAttention(nn.Module):
    """(A v) * sigmoid(x W) before the output projection, with A softmax attention, arXiv:2505.06708 (gate G1).

    x is the normed input that the queries are projected from. `elementwise` has one gate for each coordinate of each
    head, `headwise` one for each head. The gate is drawn like every other projection, as in the released code, where it
    is a slice of the query projection; so it starts around sigmoid(0) = 1/2. It has no bias; there the query
    projection's flag `qkv_bias` decides, whose value in the released checkpoints was not read.
    """

    def __init__(self, site: Site, form: Literal["elementwise", "headwise"] = "elementwise") -> None:
        super().__init__()
        self.site = site
        self.gate = nn.Linear(site.dim, site.heads * (site.head_dim if form == "elementwise" else 1), bias=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        y = softmax_attention(q, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)
        openness = torch.sigmoid(self.gate(ctx.x))
        return y * openness.view(*openness.shape[:2], self.site.heads, -1).transpose(1, 2)


GATED = Variant(
    name="gated",
    core=GatedAttention,
    source="Qiu et al. 2025, arXiv:2505.06708, gate after attention (G1); github.com/qiuzh20/gated_attention",
    version=1,
    summary="Multiplies what each head has read by a sigmoid gate that the reading token computes from itself.",
    formula="(A v) * sigmoid(x W), A = softmax(q k' / sqrt(d))",
    family="gate",
    attention_map="nonnegative",
    settings={"form": "elementwise"},
    choices={"form": ("elementwise", "headwise")},
    cost="fused",
    extra_parameters="dim x heads x head_dim a layer, or dim x heads with form headwise",
    pretrained="lossy",
    caveats=(
        "The paper's evidence is about language models and attention sinks; it makes no claim of robustness.",
        "The gate starts at about one half, so the branch starts at half its size.",
        "The elementwise gate adds a fourth to the attention's parameters: compare with a wider softmax.",
    ),
    reported=(
        Reported(
            value=4.8,
            unit="%",
            of="attention that goes to the first token, language model with the gate (softmax there: 46.7)",
            protocol="mean over a trained language model's attention; number of seeds not read",
            source="secondary text on arXiv:2505.06708",
        ),
    ),
)
