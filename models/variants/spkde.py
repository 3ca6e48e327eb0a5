"""Scaled and projected kernel density attention: keys and values in sparse regions get no weight, whoever asks."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attention import Context
from ..direction import direction
from ..kernel_density import squared_distance, weighted_estimate
from ..site import Site
from ..variant import Variant

PENALTY, RELAXATION = 0.1, 1.6
"""Of the alternating directions: penalty over the mean diagonal of the centred kernel, and over-relaxation."""
LEAST = 1e-6
"""Share of the weights that is spread evenly, as an interior-point solver leaves it, so that no weight is quite 0."""


class ScaledProjectedAttention(nn.Module):
    """sum_j w_j E_ij v_j / sum_j u_j E_ij with E_ij = exp(-|q_i - k_j|^2 / sqrt(d)) and |k_j| = 1, arXiv:2210.05794.

    w and u are the weights of two scaled and projected density estimates (arXiv:1411.4378), of the pairs (k, v) and of
    the keys alone: the kernel density estimate is scaled up by b = 1 / (1 - `outliers`) and projected back onto the
    weighted estimates, min_a a' G a / 2 - b mean(G) a over weights a that are not negative and sum to 1, with G the
    kernel matrix of the tokens. Here by `steps` steps of alternating directions from uniform weights, in float64: the
    problem is so ill-conditioned that float32 finds other weights.

    `sample`: one problem for each sample and head. `released`: one for the whole batch, G averaged over samples and
    heads, as in the released code. That code solves with an interior-point method outside of autograd
    (`gradient="stop"`); `open` is the same function with the gradient through all steps. Its class has 0.05 for
    `outliers`, its command line passes 0.1. A key of length 0 stays 0.
    """

    def __init__(
        self,
        site: Site,
        form: Literal["sample", "released"] = "sample",
        outliers: float = 0.1,
        steps: int = 50,
        gradient: Literal["stop", "open"] = "stop",
    ) -> None:
        super().__init__()
        if site.causal:
            raise ValueError(
                "spkde under a causal mask: its weights look at later tokens, and one problem for each prefix costs "
                "tokens^3; use it without a causal mask, or use rkde, which has a prefix form"
            )
        if not 0 <= outliers < 1 or steps < 1:
            raise ValueError(
                f"spkde with outliers {outliers} and {steps} steps: allowed are a share of outliers from 0 to below 1 "
                "and at least 1 step; set them inside these ranges"
            )
        self.site = site
        self.form = form
        self.boost = 1 / (1 - outliers)
        self.steps = steps
        self.gradient = gradient

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        if self.form == "released" and ctx.mask is not None:
            raise ValueError(
                "spkde with form 'released' and a mask of tokens: it averages kernels over samples, whose masks "
                "differ; allowed there: 'sample'; set form to it"
            )
        k = direction(k)
        joint, marginal = self._weights(torch.cat((k, v), -1), ctx.mask), self._weights(k, ctx.mask)
        return weighted_estimate(q, k, v, joint, marginal, scale=2 * self.site.scale, mask=ctx.mask)

    def _weights(
        self, points: Float[Tensor, "batch head key width"], mask: Bool[Tensor, "batch key"] | None
    ) -> Float[Tensor, "batch head key"]:
        """Return the weights of the points, which sum to 1 over the real ones."""
        if self.gradient == "stop":
            points = points.detach()
        # The kernel less 1, exact where points nearly coincide: a constant changes nothing among weights of sum 1.
        kernel = torch.expm1(-self.site.scale * squared_distance(points, points))
        if self.form == "released":
            kernel = kernel.mean((0, 1), keepdim=True)
        real = torch.ones_like(kernel[:, :, 0]) if mask is None else mask[:, None].expand(kernel.shape[:3]).to(kernel)
        return projected(kernel.double(), real.double(), self.boost, self.steps).expand(points.shape[:3])


def projected(
    kernel: Float[Tensor, "batch head key key"], real: Float[Tensor, "batch head key"], boost: float, steps: int
) -> Float[Tensor, "batch head key"]:
    """Return the weights a of least a' G a / 2 - boost mean(G) a, which are not negative and sum to 1 over `real`.

    Alternating directions: a step of the problem without the signs (one product with an inverse made once, then a shift
    to sum 1), a step to what is not negative, and their multipliers. On sums of 1, G counts only up to what is constant
    along rows and columns, so it is centred, which makes the problem better conditioned.
    """
    uniform = real / real.sum(-1, keepdim=True).clamp(min=1)
    density = (kernel @ uniform[..., None])[..., 0]
    overall = (density * uniform).sum(-1)[..., None, None]
    centred = (
        (kernel - density[..., :, None] - density[..., None, :] + overall) * real[..., :, None] * real[..., None, :]
    )
    size = (centred.diagonal(dim1=-2, dim2=-1) * uniform).sum(-1, keepdim=True)
    penalty = PENALTY * size.clamp(min=1e-12)  # points that coincide leave nothing to solve
    inverse = torch.linalg.inv_ex(centred + torch.diag_embed(penalty.expand_as(real))).inverse
    pull = (boost - 1) * density
    kept, multiplier = uniform, torch.zeros_like(uniform)
    for _ in range(steps):
        free = (inverse @ ((pull + penalty * (kept - multiplier)) * real)[..., None])[..., 0]
        free = RELAXATION * (free + (1 - free.sum(-1, keepdim=True)) * uniform) + (1 - RELAXATION) * kept
        kept = (free + multiplier).clamp(min=0) * real
        multiplier = multiplier + free - kept
    kept = kept / kept.sum(-1, keepdim=True).clamp(min=LEAST)
    return (1 - LEAST) * kept + LEAST * uniform


SPKDE = Variant(
    name="spkde",
    core=ScaledProjectedAttention,
    source="Han et al. 2023, arXiv:2210.05794, not read beyond its abstract; github.com/aaronhan223/robust_transformer",
    version=1,
    summary="Weighs keys and values by a scaled and projected density estimate, which drops those in sparse regions.",
    formula="sum_j w_j E_ij v_j / sum_j u_j E_ij, E_ij = exp(-|q_i - k_j|^2 / sqrt(d)), |k_j| = 1, "
    "w least of a' G a / 2 - b mean(G) a on the simplex for (k, v), u for k",
    family="kernel_density",
    attention_map="nonnegative",
    settings={"form": "sample", "outliers": 0.1, "steps": 50, "gradient": "stop"},
    choices={"form": ("sample", "released"), "gradient": ("stop", "open")},
    causal="no",
    coupling_settings={"form": "released"},
    detaches=("weights",),
    open_settings={"gradient": "open"},
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "With form released, the samples of a batch share their weights.",
        "Rows do not sum to 1: where a query reads keys that only the marginal weights drop, outputs can be far larger "
        "than the values.",
        "Where values differ by about 1 in each coordinate, their joint kernel is nearly the identity and the joint "
        "weights nearly equal: only the marginal weights of the keys act.",
        "Keys are normalised: the row to compare it with is a softmax with normalised keys, not only the plain one.",
    ),
)
