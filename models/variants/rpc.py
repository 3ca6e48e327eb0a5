"""Robust principal components: keys are split into a smooth part and sparse outliers, and only the former attend."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import QKV, Context, Weights, softmax_attention
from ..site import Site
from ..token_mean import token_mean
from ..variant import Variant


class RobustPrincipalComponentAttention(nn.Module):
    """softmax(c c' / sqrt(d)) v with keys c cleaned of sparse outliers, RPC-Attention of arXiv:2406.13762.

    Principal attention pursuit: K = L + S by alternating directions with multipliers U, from L = U = 0. One iteration
    is S = soft(K - L + U, threshold), c = K - S - U, L = softmax(c c' / sqrt(d)) V, U = U + K - L - S; the output is
    the last L, so the first iteration attends with keys clipped at the threshold. Queries are keys: there is no query
    projection of its own (`q` projects both). `iterations` n, and `strength` is the paper's lambda.

    mu = H / (4 mean |K|), the mean over a head's coordinates and real tokens; the released code has N D / (4 |K|_1)
    with D the width of all heads and |K|_1 of one. `released`: the threshold is lambda mu, which falls as keys grow;
    `usual`: lambda / mu, the soft threshold that the augmented Lagrangian gives, which grows with them. The released
    multiplier is mu U.

    `first`: layer 0 iterates and all others attend plainly with tied queries and keys, as in the released commands that
    train and evaluate; `all`: every layer, as in the one that attacks, with 2 iterations where the others have 4 (or 1
    in training, in its script). Where the site is causal, each token has the mean |K| of those up to it.
    """

    omits = ("k",)

    def __init__(
        self,
        site: Site,
        iterations: int = 4,
        strength: float = 4.0,
        layers: Literal["first", "all"] = "first",
        threshold: Literal["released", "usual"] = "released",
    ) -> None:
        super().__init__()
        if iterations < 1 or strength < 0:
            raise ValueError(
                f"rpc with {iterations} iterations and strength {strength}: allowed are at least 1 iteration and a "
                "strength of 0 or more; set them inside these ranges"
            )
        self.site = site
        self.iterations = iterations if layers == "all" or site.layer == 0 else 0
        self.strength = strength
        self.threshold = threshold

    def project(self, x: Tensor, weights: Weights) -> QKV:
        """Map the normed input to keys, which are also the queries, and to values."""
        k, v = (
            w(x).view(*x.shape[:2], self.site.heads, self.site.head_dim).transpose(1, 2) for w in (weights.q, weights.v)
        )
        return QKV(k, k, v)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return self._smooth(self._clean(k, v, ctx), v, ctx)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale c c'."""
        clean = self._clean(k, v, ctx)
        return self.site.scale * clean @ clean.transpose(-2, -1)

    def _smooth(self, clean: Tensor, v: Tensor, ctx: Context) -> Tensor:
        return softmax_attention(clean, clean, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)

    def _clean(self, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the keys that attend in the last iteration."""
        if not self.iterations:
            return k
        bound = self._bound(k, ctx)
        smooth, multiplier = torch.zeros_like(k), torch.zeros_like(k)
        for iteration in range(self.iterations):
            rest = k - smooth + multiplier
            sparse = rest - rest.clamp(-bound, bound)
            clean = k - sparse - multiplier
            if iteration + 1 < self.iterations:
                smooth = self._smooth(clean, v, ctx)
                multiplier = multiplier + k - smooth - sparse
        return clean

    def _bound(self, k: Tensor, ctx: Context) -> Tensor:
        """Return the soft threshold, broadcastable to the keys; finite where all of them are 0."""
        size = token_mean(k.abs().mean(-1, keepdim=True), ctx.mask, self.site.causal)
        mu = self.site.heads / (4 * size.clamp(min=torch.finfo(size.dtype).tiny ** 0.25))
        return self.strength * mu if self.threshold == "released" else self.strength / mu


RPC = Variant(
    name="rpc",
    core=RobustPrincipalComponentAttention,
    source="Teo and Nguyen 2024, arXiv:2406.13762, not read beyond its abstract; github.com/rachtsy/KPCA_code",
    version=1,
    summary="Splits the keys into what attention reproduces and sparse outliers, in a few rounds, and attends without.",
    formula="softmax(c c' / sqrt(d)) v, c = k - s - u after rounds of s = soft(k - l + u), "
    "l = softmax(c c' / sqrt(d)) v, u = u + k - l - s",
    family="rpc",
    attention_map="row_stochastic",
    settings={"iterations": 4, "strength": 4.0, "layers": "first", "threshold": "released"},
    choices={"layers": ("first", "all"), "threshold": ("released", "usual")},
    causal="prefix",
    logits=True,
    cost="fused",
    extra_parameters="none; one projection of dim x dim fewer a layer",
    pretrained="impossible",
    caveats=(
        "The released commands train with 4 iterations in layer 0 and attack with 2 in all layers.",
        "Queries are tied to keys: compare it with a symmetric softmax of as many parameters, not only the plain one.",
        "With threshold released the soft threshold shrinks as keys grow; with both it depends on the number of heads.",
        "Soft thresholds cut the gradient of every coordinate that they zero or clip.",
        "A reproduction (arXiv:2505.07908) is reported to find no empirical support for reading attention as kernel "
        "principal components; it does not test robustness.",
    ),
)
