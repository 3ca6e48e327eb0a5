"""Random metric: elliptical attention with random stretches, the control for what its estimator contributes."""

from typing import Literal

import torch
from torch import Tensor

from ..attention import Context
from ..diagonal_metric import DiagonalMetricAttention, scaled
from ..initial_value import Generators
from ..noise import Noise
from ..site import Site
from ..variant import Reported, Variant


class RandomMetricAttention(DiagonalMetricAttention):
    """softmax((q * m) k' / sqrt(d)) v with m uniform on [bottom, 1), scaled by its largest coordinate.

    `fixed` draws m once from the training seed and keeps it with the weights; `resampled` takes a fresh one for each
    sample and pass, also at inference, as the released ablation of arXiv:2406.13770 does, which makes the network
    stochastic. Layer 0 attends plainly, as in elliptical attention.

    The released code has bottom 0 where it trains and 0.3 where it attacks; one value serves both here.
    """

    frozen: Tensor
    """The fixed diagonal, `[head, head_dim]`; ones until drawn, and in layer 0."""

    def __init__(self, site: Site, draw: Literal["fixed", "resampled"] = "fixed", bottom: float = 0.0) -> None:
        super().__init__(site)
        if not 0 <= bottom <= 1:
            raise ValueError(f"random_metric with bottom {bottom}: allowed from 0 to 1; set bottom inside that range")
        self.bottom = bottom
        self.plain = site.layer == 0
        self.noise: tuple[Noise, ...] = ()
        if draw == "fixed":
            self.register_buffer("frozen", torch.ones(site.heads, site.head_dim))
        elif not self.plain:
            self.noise = (Noise("metric", (site.heads, site.head_dim), "uniform", "always"),)

    def _stretched(self, uniform: Tensor) -> Tensor:
        return scaled(self.bottom + (1 - self.bottom) * uniform, "max")

    def draw(self, generators: Generators) -> None:
        """Draw the fixed diagonal from the training seed."""
        if "frozen" in self._buffers and not self.plain:
            self.frozen.copy_(self._stretched(torch.rand(self.frozen.shape, generator=generators("frozen"))))

    def metric(self, v: Tensor, ctx: Context) -> Tensor:
        """Return m, one for all samples (`fixed`) or one for each (`resampled`)."""
        if self.plain:
            return v.new_ones(1, 1, 1, 1)
        if self.noise:
            return self._stretched(ctx.noise["metric"].to(v.dtype))[:, :, None]
        return self.frozen[None, :, None]


RANDOM_METRIC = Variant(
    name="random_metric",
    core=RandomMetricAttention,
    source="control; ablation of Nielsen et al. 2024, arXiv:2406.13770, in github.com/stefvk/Elliptical-Attention",
    version=1,
    summary="Stretches each coordinate of a head by a random factor, drawn once or afresh for each sample and pass.",
    formula="softmax((q * m) k' / sqrt(d)) v, m = u / max_d u, u ~ U(bottom, 1)",
    family="softmax",
    attention_map="row_stochastic",
    settings={"draw": "fixed", "bottom": 0.0},
    choices={"draw": ("fixed", "resampled")},
    noise=("metric",),
    extra_parameters="none learned; heads x head_dim frozen numbers a layer when fixed",
    logits=True,
    cost="fused",
    pretrained="lossy",
    control_for=("elliptical",),
    reported=(
        Reported(
            value=67.72,
            unit="%",
            of="top-1 accuracy under SPSA, ImageNet-1k validation, DeiT-Tiny, draw resampled (elliptical there: 59.23)",
            protocol="nominal eps 0.1 on normalised inputs (about 0.022 in pixels on [0, 1]), 40 iterations, 128 "
            "samples, no box clipping, the model's own predictions as labels; bottom 0 in training and 0.3 under "
            "attack in the released code; one seed; noise at inference defeats SPSA by itself",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=42.61,
            unit="perplexity",
            of="WikiText-103 test with swapped words, 16-layer language model, draw resampled, better of two runs",
            protocol="words replaced by AAA in inputs and targets at an unrecorded rate, so runs "
            "cannot be compared; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
    ),
)
