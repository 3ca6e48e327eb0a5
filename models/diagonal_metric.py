"""How far each coordinate of a head's space is stretched before queries meet keys: the diagonal of a metric M.

Elliptical attention takes M from the change of the values between two layers, its controls take it from elsewhere; all
of them multiply the queries by the diagonal and leave the rest to one fused call, never forming a `head_dim` square.
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


class DiagonalMetricAttention(nn.Module):
    """softmax(scale (q * m) k') v for a non-negative diagonal m that a subclass supplies."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def metric(
        self, v: Float[Tensor, "batch head token dim"], ctx: Context
    ) -> Float[Tensor, "#batch #head #token #dim"]:
        """Return the diagonal m, broadcastable to the queries; ones give plain softmax attention."""
        raise NotImplementedError

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        m = self.metric(v, ctx)
        return softmax_attention(q * m, k, v, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale (q * m) k'."""
        return self.site.scale * (q * self.metric(v, ctx)) @ k.transpose(-2, -1)


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
