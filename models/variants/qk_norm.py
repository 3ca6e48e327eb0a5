"""QK-norm: queries and keys are normalised before they meet, and a learned gain sets how sharp attention is."""

from math import log2
from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..direction import direction
from ..site import Site
from ..variant import Reported, Variant


class QkNormAttention(nn.Module):
    """softmax(g q k' / (|q| |k|)) v, or softmax(norm(q) norm(k)' / sqrt(d)) v with a layer norm of each head's vectors.

    `form="l2"` is arXiv:2010.04245: both are divided by their Euclidean lengths, and one learned gain g for the whole
    layer, shared by its heads, replaces 1 / sqrt(d). It starts at log2(L^2 - L), where L is the 97.5th percentile of
    the sequence lengths there and the number of tokens here (2 if there is but one); the released code agrees. A vector
    of length 0 has no direction: its logits are 0.

    `form="layer_norm"` is the normalisation of the 22-billion-parameter ViT, arXiv:2302.05442: a layer norm over the
    coordinates of a head with a learned gain and no bias, one for the queries and one for the keys, each shared by the
    heads; 1 / sqrt(d) stays. Bias and sharing follow flax.linen's `normalize_qk`, which cites that paper.
    """

    gain: nn.Parameter
    """Factor on the cosines (`l2`)."""

    def __init__(self, site: Site, form: Literal["l2", "layer_norm"] = "l2") -> None:
        super().__init__()
        self.site = site
        self.form = form
        if form == "l2":
            length = max(site.tokens, 2)
            self.gain = nn.Parameter(torch.tensor(log2(length**2 - length)))
        else:
            self.norm_q = nn.LayerNorm(site.head_dim, eps=1e-6, bias=False)
            self.norm_k = nn.LayerNorm(site.head_dim, eps=1e-6, bias=False)

    def _normalised(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "l2":
            return self.gain.to(q.dtype) * direction(q), direction(k)
        return self.site.scale * self.norm_q(q), self.norm_k(k)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q, k = self._normalised(q, k)
        return softmax_attention(q, k, v, scale=1.0, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the dot products of the normalised queries and keys, gain or 1 / sqrt(d) included."""
        q, k = self._normalised(q, k)
        return q @ k.transpose(-2, -1)


QK_NORM = Variant(
    name="qk_norm",
    core=QkNormAttention,
    source="Henry et al. 2020, arXiv:2010.04245, github.com/CyndxAI/QKNorm; Dehghani et al. 2023, arXiv:2302.05442",
    version=1,
    summary="Normalises queries and keys, so logits are bounded and one learned gain sets the sharpness of all tokens.",
    formula="softmax(g q k' / (|q| |k|)) v, g learned; or softmax(layer_norm(q) layer_norm(k)' / sqrt(d)) v",
    family="key_norm",
    attention_map="row_stochastic",
    settings={"form": "l2"},
    choices={"form": ("l2", "layer_norm")},
    logits=True,
    cost="fused",
    caveats=(
        "The initial gain grows with the number of tokens, so networks on other lengths start at another temperature.",
    ),
    extra_parameters="1 gain a layer (l2), 2 head_dim gains a layer (layer_norm)",
    pretrained="lossy",
    reported=(
        Reported(
            value=71.9,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, ViT-Ti, row QKNorm (softmax in the same table: 72.6)",
            protocol="independent replication with the DeiT recipe, mean of several runs",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=58.1,
            unit="%",
            of="error on ImageNet-C, ViT-Ti, row QKNorm (softmax in the same table: 55.7)",
            protocol="independent replication with the DeiT recipe, mean of several runs",
            source="secondary text on arXiv:2604.00199",
        ),
    ),
)
