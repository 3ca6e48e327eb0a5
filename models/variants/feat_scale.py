"""FeatScale: each channel learns how much of the tokens' mean and of their differences attention passes on."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..site import Site
from ..token_mean import token_mean
from ..variant import Variant
from .softmax import SoftmaxAttention


class FeatScaleAttention(SoftmaxAttention):
    """y + s * mean(y) + t * (y - mean(y)) after the output projection, arXiv:2203.05962; s, t one number a channel.

    The mean is over tokens, y the projected output of softmax attention; s and t start at 0. `paper` is that formula.
    `released` adds the two scaled parts once more where the branch joins the stream, y + 2 (s * mean + t * rest), as
    the released code does: the same functions, with parameters that count double and so learn at twice the rate.

    Where the site is causal, the mean is over the tokens up to each one; paper and code see all tokens.
    """

    def __init__(self, site: Site, form: Literal["paper", "released"] = "paper") -> None:
        super().__init__(site)
        self.times = 1 if form == "paper" else 2
        self.mean_scale = nn.Parameter(torch.zeros(site.dim))
        self.rest_scale = nn.Parameter(torch.zeros(site.dim))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if ctx.mask is not None:
            raise ValueError(
                "feat_scale with a mask of tokens: its mean after the output projection would count masked tokens; "
                "allowed: sequences without masked tokens; use sequences of one length"
            )
        return super().forward(q, k, v, ctx)

    def merge(self, y: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        """Return the projected output with its mean and its rest scaled."""
        mean = token_mean(y, None, self.site.causal)
        scaled = self.mean_scale.to(y.dtype) * mean + self.rest_scale.to(y.dtype) * (y - mean)
        return y + self.times * scaled


FEAT_SCALE = Variant(
    name="feat_scale",
    core=FeatScaleAttention,
    source="Wang et al. 2022, FeatScale, arXiv:2203.05962; github.com/VITA-Group/ViT-Anti-Oversmoothing",
    version=1,
    summary="Scales, channel by channel, the tokens' mean and their deviations from it after the output projection.",
    formula="y + s * mean(y) + t * (y - mean(y)), y = [softmax(q k' / sqrt(d)) v] W_o",
    family="frequency_scale",
    attention_map="row_stochastic",
    settings={"form": "paper"},
    choices={"form": ("paper", "released")},
    causal="prefix",
    logits=True,
    cost="fused",
    extra_parameters="2 dim a layer",
    pretrained="lossless",
    caveats=(
        "It takes no masked tokens.",
        "The paper's gains are on clean accuracy of deep vision transformers; it makes no claim of robustness.",
        "The kind of map is that inside the heads: what the whole layer does to its values is signed.",
    ),
)
