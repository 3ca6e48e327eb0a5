"""LipsFormer attention: queries, keys and values are all brought to length one, so the layer is Lipschitz."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..site import Site
from ..variant import Variant

TAU = 10.0
"""Factor on the cosines."""
EPS = 1e-6
"""Added to the squared lengths, which keeps the slope of the normalisation finite at 0."""


def bounded(x: Tensor) -> Tensor:
    """Return x / sqrt(|x|^2 + eps): length below one, and slope at most 1 / sqrt(eps)."""
    return x * (x.square().sum(-1, keepdim=True) + EPS).rsqrt()


class LipsFormerAttention(nn.Module):
    """nu softmax(tau cos(q, k)) v / |v|, scaled cosine similarity attention of arXiv:2304.09856, as recalled.

    `form="paper"`: lengths are sqrt(|x|^2 + eps), and nu is one learned number a layer. The released code leaves v as
    it is, drops nu and divides by the plain length (`form="released"`; its comment says that both were tried). tau is
    the constant 10 of the released code in both forms. The paper's eps and first value of nu were not read at their
    source: 1e-6 and 1 here. Both forms use the eps, where the released one divides by a length of at least 1e-12.

    The backbone's norms are center norms, as in the paper. Its weighted residual branches, spectral initial values,
    convolutional projections and position bias belong to the network and are not here.
    """

    def __init__(self, site: Site, form: Literal["paper", "released"] = "paper") -> None:
        super().__init__()
        self.site = site
        self.nu = nn.Parameter(torch.ones(())) if form == "paper" else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if self.nu is not None:
            v = self.nu.to(v.dtype) * bounded(v)
        return softmax_attention(bounded(q), bounded(k), v, scale=TAU, causal=self.site.causal, mask=ctx.mask)


LIPSFORMER = Variant(
    name="lipsformer",
    core=LipsFormerAttention,
    source="Qi et al. 2023, LipsFormer, arXiv:2304.09856; github.com/IDEA-Research/LipsFormer",
    version=1,
    summary="Compares directions at a fixed temperature, averages directions of values, and only centres in its norms.",
    formula="nu softmax(10 q k' / (|q| |k|)) v / |v|, |x| = sqrt(x x' + eps), nu learned",
    family="key_norm",
    attention_map="implicit",
    settings={"form": "paper"},
    choices={"form": ("paper", "released")},
    norm="center_norm",
    cost="fused",
    caveats=(
        "It changes the backbone's norms too: compare with cosine to see what the norms contribute.",
        "The paper's claim rests on the whole network, of which this is the attention and the norm.",
        "The first value of nu and the eps were not read at their source.",
    ),
    extra_parameters="1 factor a layer (paper), none (released)",
    pretrained="lossy",
)
