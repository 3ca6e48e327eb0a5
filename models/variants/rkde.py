"""Robust kernel density attention: keys and values that lie far from all others count less, whoever asks."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attention import Context
from ..direction import direction
from ..kernel_density import gaussian_kernel, weighted_estimate
from ..site import Site
from ..variant import Reported, Variant
from ..visibility import softmax_over, visible_keys

FLOOR = 0.01
"""Least weight of a point under Hampel's loss, before the weights are normalised."""


class RobustKernelDensityAttention(nn.Module):
    """sum_j w_j E_ij v_j / sum_j u_j E_ij with E_ij = exp(-|q_i - k_j|^2 / sqrt(d)) and |k_j| = 1, arXiv:2210.05794.

    w and u are the weights of two robust density estimates, of the pairs (k, v) and of the keys alone: each starts
    uniform and is reweighted `iterations` times by psi(r_j) / r_j, normalised, where r_j is the distance of point j to
    the weighted mean in the kernel's feature space. Huber: 1 up to a = `threshold`, a / r beyond. Hampel: as Huber up
    to 2 a, then (3 a - r) / r falling to 0.01, where it stays. A key of length 0 stays 0.

    `corrected` has the distance r_j^2 = 1 - 2 (K w)_j + w' K w. `released` has the sign of the released code,
    1 + (K w)_j + w' K w, which is no distance: it lies between 1 and 3, so weights differ by sqrt(3) at most, points
    in the crowd weigh *less*, and under Hampel with a up to 1/3 all weights are equal and the robust estimate is the
    plain one.

    Where values spread by about 1 in each coordinate, all pairs lie about 1 from the mean: the joint weights are nearly
    equal, and under Hampel with a = 0.2 they are the plain ones. The weights of the keys alone still differ.

    Two facts of the released code are not here: beyond one iteration it averages the weights over the batch and the
    heads, and Hampel's weight falls to 0 just below 3 a, where its logarithm diverges; the floor holds there too.

    Where the site is causal, every query has the weights of the points up to it. The released language model averages
    over the *later* tokens, whose kernels it sets to zero: every r is 1, all weights are equal, and its robust
    attention is the plain kernel density attention.
    """

    def __init__(
        self,
        site: Site,
        loss: Literal["huber", "hampel"] = "huber",
        form: Literal["corrected", "released"] = "corrected",
        threshold: float = 0.2,
        iterations: int = 1,
    ) -> None:
        super().__init__()
        if threshold <= 0 or iterations < 1:
            raise ValueError(
                f"rkde with threshold {threshold} and iterations {iterations}: allowed are a threshold above 0 and at "
                "least 1 iteration; set them inside these ranges"
            )
        self.site = site
        self.loss = loss
        self.slope = -2 if form == "corrected" else 1
        self.threshold = threshold
        self.iterations = iterations

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        k, scale = direction(k), 2 * self.site.scale
        seen = visible_keys(q, ctx, self.site.causal)
        if not self.site.causal:
            seen = seen[:, :, :1]  # all queries see the same keys
        joint, marginal = self._weights(torch.cat((k, v), -1), seen), self._weights(k, seen)
        if not self.site.causal:
            return weighted_estimate(q, k, v, joint[:, :, 0], marginal[:, :, 0], scale=scale, mask=ctx.mask)
        attention = softmax_over(scale * q @ k.transpose(-2, -1), seen)
        total = (attention * marginal).sum(-1, keepdim=True)
        y = (attention * joint).to(v.dtype) @ v / torch.where(total == 0, 1, total)
        return y.to(v.dtype)

    def _weights(
        self, points: Float[Tensor, "batch head key width"], seen: Bool[Tensor, "#batch 1 query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return the weights of the points that a query sees, which sum to 1; one row where `seen` has one."""
        kernel = gaussian_kernel(points, self.site.scale)
        weights = seen.to(kernel.dtype).expand(*points.shape[:2], -1, -1)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        # r^2 is a small difference of numbers near 1: too fine for the narrow products of autocast.
        with torch.autocast(points.device.type, enabled=False):
            for _ in range(self.iterations):
                closeness = weights @ kernel
                square = 1 + self.slope * closeness + (closeness * weights).sum(-1, keepdim=True)
                weights = self._influence(square) * seen
                total = weights.sum(-1, keepdim=True)
                weights = weights / torch.where(total == 0, 1, total)
        return weights

    def _influence(self, square: Tensor) -> Tensor:
        """Return psi(r) / r from r^2, which rounding may bring below zero; 1 up to the threshold."""
        r = square.clamp(min=self.threshold**2).sqrt()
        huber = self.threshold / r
        if self.loss == "huber":
            return huber
        return torch.minimum(huber, (3 * self.threshold - r) / r).clamp(min=FLOOR)


RKDE = Variant(
    name="rkde",
    core=RobustKernelDensityAttention,
    source="Han et al. 2023, arXiv:2210.05794, not read beyond its abstract; github.com/aaronhan223/robust_transformer",
    version=1,
    summary="Weighs keys and values by a robust density estimate, so outlying tokens count less for every query.",
    formula="sum_j w_j E_ij v_j / sum_j u_j E_ij, E_ij = exp(-|q_i - k_j|^2 / sqrt(d)), |k_j| = 1, "
    "w robust weights of (k, v), u of k",
    family="kernel_density",
    attention_map="nonnegative",
    settings={"loss": "huber", "form": "corrected", "threshold": 0.2, "iterations": 1},
    choices={"loss": ("huber", "hampel"), "form": ("corrected", "released")},
    causal="prefix",
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "Where values differ by about 1 in each coordinate, joint weights are nearly equal; those of the keys remain.",
        "Under a causal mask it takes time cubic in the tokens.",
        "The default corrects a sign of the released code, whose logged numbers belong to form released.",
        "With form released, points in the crowd weigh less than outliers, and loss hampel with a threshold up to 1/3 "
        "changes nothing.",
        "In the released language model all weights are equal, so as its code stands, numbers on swapped words are "
        "those of plain kernel density attention.",
        "Rows do not sum to 1: the joint weights and the marginal ones differ.",
        "Keys are normalised: the row to compare it with is a softmax with normalised keys, not only the plain one.",
    ),
    reported=(
        Reported(
            value=72.71,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, DeiT-Tiny, loss huber, form released (softmax in the "
            "same repository: 71.83, plain kernel density attention: 72.68)",
            protocol="300 epochs, one seed each",
            source="logs in github.com/aaronhan223/robust_transformer (files_robust_0.2, files_baseline, files_kde)",
        ),
        Reported(
            value=44.28,
            unit="%",
            of="top-1 accuracy under PGD-20, ImageNet-1k validation, DeiT-Tiny, loss huber, form released (softmax in "
            "the same repository: 43.84, plain kernel density attention: 43.38)",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), step 0.15 eps, random start, "
            "no box clipping, the model's own predictions as labels; one seed",
            source="logs in github.com/aaronhan223/robust_transformer (files_robust_0.2, files_baseline, files_kde)",
        ),
        Reported(
            value=56.02,
            unit="%",
            of="top-1 accuracy under FGM, ImageNet-1k validation, DeiT-Tiny, loss huber, form released (softmax in the "
            "same repository: 54.62, plain kernel density attention: 55.26)",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), one step, no box clipping, "
            "the model's own predictions as labels; one seed",
            source="logs in github.com/aaronhan223/robust_transformer (files_robust_0.2, files_baseline, files_kde)",
        ),
    ),
)
