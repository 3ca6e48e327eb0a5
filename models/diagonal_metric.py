"""How far each coordinate of a head's space is stretched before queries meet keys: the diagonal of a metric M.

Elliptical attention takes M from the change of the values between two layers, its controls take it from elsewhere; all
bring the diagonal into queries and keys and leave the rest to one fused call, never forming a `head_dim` square.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention import Context, softmax_attention
from .site import Site

Statistic = Literal["mean", "median"]
"""How the change is summarised over tokens."""
Scaling = Literal["max", "mean"]
"""Which of a head's coordinates is brought to 1: the largest, or the average one."""
Form = Literal["dot", "mahalanobis"]
"""Dot product under the metric, or distance under it."""
Gradient = Literal["stop", "open"]
"""Whether gradient flows through the metric."""


def value_change(
    v: Float[Tensor, "batch head token dim"],
    previous: Float[Tensor, "batch head token dim"],
    mask: Bool[Tensor, "batch token"] | None,
    statistic: Statistic,
) -> Float[Tensor, "batch head 1 dim"]:
    """Change |v - previous| of each coordinate, summarised over the real tokens of each sample and head.

    Non-negative, in units of the values. The median of an even number of tokens is the lower of the middle two, as in
    the released code of arXiv:2406.13770.
    """
    change = (v - previous).abs()
    if mask is None:
        return change.mean(-2, keepdim=True) if statistic == "mean" else change.median(-2, keepdim=True).values
    real = mask[:, None, :, None]
    if statistic == "median":
        return change.masked_fill(~real, torch.nan).nanmedian(-2, keepdim=True).values
    return change.masked_fill(~real, 0).sum(-2, keepdim=True) / real.sum(-2, keepdim=True).clamp(min=1)


def prefix_value_change(
    v: Float[Tensor, "batch head token dim"],
    previous: Float[Tensor, "batch head token dim"],
    mask: Bool[Tensor, "batch token"] | None,
) -> Float[Tensor, "batch head token dim"]:
    """Mean change |v - previous| over the real tokens up to and including each token: nothing later enters.

    Zero where no real token has come yet.
    """
    change = (v - previous).abs()
    if mask is None:
        count = torch.arange(1, v.shape[-2] + 1, dtype=v.dtype, device=v.device)[:, None]
        return change.cumsum(-2) / count
    real = mask[:, None, :, None]
    return change.masked_fill(~real, 0).cumsum(-2) / real.cumsum(-2).clamp(min=1)


def scaled(change: Float[Tensor, "*leading dim"], scaling: Scaling) -> Float[Tensor, "*leading dim"]:
    """Divide by the largest coordinate (result in [0, 1]) or by the average one (result averages 1).

    All ones where every coordinate is zero: no change singles out no direction, and attention is the plain one there.

    >>> scaled(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]), "max").tolist()
    [[0.25, 0.5, 1.0], [1.0, 1.0, 1.0]]
    """
    size = change.amax(-1, keepdim=True) if scaling == "max" else change.mean(-1, keepdim=True)
    flat = size == 0
    # The divisor is replaced before dividing: a NaN that `where` hides in the output still spoils the gradient.
    return torch.where(flat, 1, change / torch.where(flat, 1, size))


def distance_factors(
    q: Float[Tensor, "batch head token dim"],
    k: Float[Tensor, "batch head token dim"],
    m: Float[Tensor, "#batch #head #token #dim"],
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token width"]]:
    """Return two sets of vectors whose dot products are q' M k - k' M k / 2 with M = diag(m).

    That is -(q - k)' M (q - k) / 2 but for a term that is the same along a row, which softmax cancels. One metric for
    all queries needs one more coordinate; a metric of each query's own needs twice the width.
    """
    if m.shape[-2] == 1:
        length = (k.square() * m).sum(-1, keepdim=True)
        return torch.cat((q * m, torch.ones_like(q[..., :1])), -1), torch.cat((k, -length / 2), -1)
    return torch.cat((q * m, m.expand_as(q)), -1), torch.cat((k, -k.square() / 2), -1)


class DiagonalMetricAttention(nn.Module):
    """Softmax attention under a non-negative diagonal metric M = diag(m) that a subclass supplies.

    `dot` is softmax(scale q' M k) v. `mahalanobis` is softmax(-scale (q - k)' M (q - k) / 2) v, the Gaussian kernel of
    the Mahalanobis distance: of its terms, q' M q cancels along a row, and k' M k is what `dot` leaves out. The two
    forms are equal where all keys have the same k' M k.
    """

    def __init__(self, site: Site, form: Form = "dot", scale: float | None = None) -> None:
        super().__init__()
        self.site = site
        self.form: Form = form
        self.scale = site.scale if scale is None else scale

    def metric(
        self, v: Float[Tensor, "batch head token dim"], ctx: Context
    ) -> Float[Tensor, "#batch #head #token #dim"]:
        """Return the diagonal m, broadcastable to the queries; ones give the plain form."""
        raise NotImplementedError

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        m = self.metric(v, ctx)
        q, k = (q * m, k) if self.form == "dot" else distance_factors(q, k, m)
        return softmax_attention(q, k, v, scale=self.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale q' M k, or -scale (q - k)' M (q - k) / 2."""
        m = self.metric(v, ctx)
        if self.form == "dot":
            return self.scale * (q * m) @ k.transpose(-2, -1)
        own = (q.square() * m).sum(-1, keepdim=True) / 2
        q, k = distance_factors(q, k, m)
        return self.scale * (q @ k.transpose(-2, -1) - own)


class ValueChangeAttention(DiagonalMetricAttention):
    """The metric of elliptical attention: how much an input's own values change between two layers.

    m is one number for each sample, head and coordinate, `[batch, head, 1, head_dim]`; where the site is causal it
    belongs to each query, and is the mean over the tokens up to it, scaled token by token. Ones where there is no layer
    before. With `gradient="stop"` no gradient flows through m.
    """

    name: str
    """Name of the variant, for its messages."""

    def __init__(
        self,
        site: Site,
        statistic: Statistic,
        scaling: Scaling,
        gradient: Gradient,
        form: Form,
        scale: float | None = None,
    ) -> None:
        super().__init__(site, form, scale)
        if site.causal and statistic == "median":
            raise ValueError(
                f"{self.name} with statistic 'median' under a causal mask: a running median over tokens has no linear "
                "form; allowed there: 'mean'; set statistic to 'mean' or use a network without a causal mask"
            )
        self.statistic: Statistic = statistic
        self.scaling: Scaling = scaling
        self.gradient: Gradient = gradient

    def metric(self, v: Tensor, ctx: Context) -> Tensor:
        """Return m, or one for each token where the site is causal."""
        if ctx.previous is None:
            return v.new_ones(1, 1, 1, 1)
        before = ctx.previous.v
        if self.gradient == "stop":
            v, before = v.detach(), before.detach()
        if self.site.causal:
            return scaled(prefix_value_change(v, before, ctx.mask), self.scaling)
        return scaled(value_change(v, before, ctx.mask, self.statistic), self.scaling)


class FrozenMetricAttention(DiagonalMetricAttention):
    """A diagonal metric that `calibrate` measures once on training samples: the same for every input.

    Ones (plain softmax) before the first calibration and in layer 0, which has no predecessor.
    """

    frozen: Tensor
    """The diagonal, `[head, head_dim]`."""

    def __init__(self, site: Site, scaling: Scaling = "max") -> None:
        super().__init__(site)
        self.scaling: Scaling = scaling
        self.register_buffer("frozen", torch.ones(site.heads, site.head_dim))

    def measured_change(self, change: Float[Tensor, "batch head dim"]) -> Float[Tensor, "head dim"]:
        """Return what of the calibration samples' changes becomes the metric."""
        raise NotImplementedError

    @torch.no_grad()
    def calibrate(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> None:
        """Set the diagonal from the mean change over the tokens of each calibration sample."""
        if ctx.previous is not None:
            change = value_change(v, ctx.previous.v, ctx.mask, "mean")[:, :, 0]
            self.frozen.copy_(scaled(self.measured_change(change), self.scaling))

    def metric(self, v: Tensor, ctx: Context) -> Tensor:
        """Return the frozen diagonal."""
        return self.frozen[None, :, None]
