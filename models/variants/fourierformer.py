"""FourierFormer: tokens are read through a product of sinc kernels, one a coordinate, and not through exponentials."""

from math import log
from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..sinc_kernel import log_sinc4_kernel
from ..site import Site
from ..variant import Variant
from ..visibility import softmax_over, visible_keys

NORMALISER = log(1e-6)
"""Logarithm of what the released code adds to a row's sum."""


class FourierFormerAttention(nn.Module):
    """A v, A_ij = prod_d sinc(R (q_id - k_jd))^4 over its row's sum; generalised Fourier integrals, arXiv:2206.00206.

    sinc(x) = sin(x) / x, and R is one learned number a layer, as in the released code, where it starts at 1 for images
    and 2 for language: the setting `radius`. `form="paper"` normalises rows exactly. The released code adds 1e-6 to
    their sum (`form="released"`), so a query far from all keys reads next to nothing. Its CUDA kernel indexes R by
    coordinate though it holds one number; the meant function is here, and there is no factor R^d, as in that kernel.

    A product of many coordinates underflows and sinc has exact zeros, so the kernel is formed in logarithms, with
    |sinc| rounded up to about 1e-7: a query that every key misses still has a direction to move in. Memory is
    tokens x tokens; time is tokens x tokens x head_dim sines, computed a second time in the backward pass.
    """

    def __init__(self, site: Site, form: Literal["paper", "released"] = "paper", radius: float = 1.0) -> None:
        super().__init__()
        if not radius > 0:
            raise ValueError(f"fourierformer with radius {radius}: allowed above 0; set radius to a positive number")
        self.site = site
        self.form = form
        self.radius = nn.Parameter(torch.tensor(radius))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        kernel, seen = log_sinc4_kernel(q, k, self.radius), visible_keys(q, ctx, self.site.causal)
        weights = softmax_over(kernel, seen)
        if self.form == "released":
            read = kernel.masked_fill(~seen, torch.finfo(kernel.dtype).min)
            weights = weights * (read.logsumexp(-1, keepdim=True) - NORMALISER).sigmoid()
        return weights.to(v.dtype) @ v


FOURIERFORMER = Variant(
    name="fourierformer",
    core=FourierFormerAttention,
    source="Nguyen et al. 2022, arXiv:2206.00206; github.com/minhtannguyen/FourierFormer_NeurIPS",
    version=1,
    summary="Weighs tokens by a product of sinc^4 over the coordinates' differences, with one learned width a layer.",
    formula="A v, A_ij = prod_d sinc(R (q_id - k_jd))^4 / its sum over j, R learned",
    family="fourier",
    attention_map="nonnegative",
    settings={"form": "paper", "radius": 1.0},
    choices={"form": ("paper", "released")},
    cost="matrix",
    caveats=(
        "The kernel is not monotone in the distance: it vanishes at multiples of pi / R and rises again behind them.",
        "Its zeros give an attack vanishing or exploding gradients; the released float32 product also underflows.",
        "Its sines, which counts of matrix products leave out, make it about a hundred times as slow as softmax "
        "attention on a CPU.",
    ),
    extra_parameters="1 width R a layer",
    pretrained="lossy",
)
