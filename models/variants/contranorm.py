"""ContraNorm: after attention every token steps away from the tokens that point the same way."""

from typing import Literal

import torch
from torch import Tensor

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Reported, Variant
from .softmax import SoftmaxAttention


class ContraNormAttention(SoftmaxAttention):
    """Softmax attention, then h <- (1 + s) h - s softmax(u u') h on the stream h, arXiv:2303.06562.

    h is the stream with attention's output added, u its tokens divided by their lengths, `strength` is s. This is
    position 7 of the released BERT code (github.com/PKU-ML/ContraNorm), the position that its README calls the default
    of the paper, in front of the next norm; a token of length 0 keeps the direction 0.

    `form`: `bert` is the formula above; `vit` is h - s softmax(u u') h, the default of the flag `identity` in the
    released vision code. That code puts it in front of every layer norm, inside the branches, where this has it on the
    stream once a block; its other flags (learned s, temperature, two-sided softmax) are off by default and not here.

    `axis`: `tokens` is the formula above; `features` is the second version of the released BERT code,
    (1 + s) h - s h softmax(u' u), with the softmax over the rows of the dim x dim matrix. It has no causal form.

    Under a causal mask a token steps away from those up to it.
    """

    def __init__(
        self,
        site: Site,
        strength: float = 0.01,
        form: Literal["bert", "vit"] = "bert",
        axis: Literal["tokens", "features"] = "tokens",
    ) -> None:
        super().__init__(site)
        if site.causal and axis == "features":
            raise ValueError(
                "contranorm with axis 'features' under a causal mask: similarities of features sum over all tokens; "
                "allowed there: 'tokens'; set axis to 'tokens' or use a network without a causal mask"
            )
        self.strength = strength
        self.kept = 1 + strength if form == "bert" else 1.0
        self.axis = axis

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if ctx.mask is not None:
            raise ValueError(
                "contranorm with a mask of tokens: masked tokens would count as neighbours of others; "
                "allowed: sequences without masked tokens; use sequences of one length"
            )
        return super().forward(q, k, v, ctx)

    def merge(self, y: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        """Return what brings the stream to where the contrast puts it."""
        h = residual + y
        length = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
        u = h / torch.where(length == 0, 1, length)
        if self.axis == "tokens":
            near = softmax_attention(u[:, None], u[:, None], h[:, None], scale=1.0, causal=self.site.causal)[:, 0]
        else:
            near = h @ (u.transpose(1, 2) @ u).softmax(-1).to(h.dtype)
        return self.kept * h - self.strength * near - residual


CONTRANORM = Variant(
    name="contranorm",
    core=ContraNormAttention,
    source="Guo et al. 2023, arXiv:2303.06562; github.com/PKU-ML/ContraNorm",
    version=1,
    summary="After attention, pushes every token of the stream away from the mean of the tokens similar to it.",
    formula="h <- (1 + s) h - s softmax(u u') h, h = stream + attention(stream), u = h / |h|",
    family="contranorm",
    attention_map="row_stochastic",
    settings={"strength": 0.01, "form": "bert", "axis": "tokens"},
    choices={"form": ("bert", "vit"), "axis": ("tokens", "features")},
    logits=True,
    cost="fused",
    pretrained="lossy",
    caveats=(
        "It takes no masked tokens.",
        "It acts on the stream once a block; the authors' vision networks put it in front of every layer norm, inside "
        "the branches.",
        "0.01 is the strength in commands that the authors published; they scan 0.0001 to 0.2 by task.",
        "The step is part of the branch that DropPath drops and rescales.",
        "With form vit the stream shrinks by the strength in every block, as no norm follows at once.",
        "The kind of map is that inside the heads; the step away from similar tokens is signed.",
    ),
    reported=(
        Reported(
            value=81.28,
            unit="%",
            of="test accuracy, ImageNet-100, DeiT of 24 layers (without ContraNorm there: 76.76)",
            protocol="in front of every layer norm; strength and number of seeds not stated there",
            source="README of github.com/PKU-ML/ContraNorm",
        ),
        Reported(
            value=83.54,
            unit="score",
            of="average over the GLUE validation sets, BERT-base (without ContraNorm there: 82.59)",
            protocol="fine-tuned, strength tuned by task",
            source="README of github.com/PKU-ML/ContraNorm",
        ),
    ),
)
