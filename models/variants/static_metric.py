"""Static metric: elliptical attention whose stretches are the training set's average, the same for every input."""

import torch
from torch import Tensor

from ..attention import Context
from ..diagonal_metric import DiagonalMetricAttention, Scaling, scaled, value_change
from ..site import Site
from ..variant import Variant


class StaticMetricAttention(DiagonalMetricAttention):
    """softmax((q * m) k' / sqrt(d)) v with m from the mean of |v - v of the layer before| over calibration samples.

    m is one number for each head and coordinate, measured by `calibrate` and frozen; ones (plain softmax) before the
    first calibration and in layer 0. Multiplying the rows of the query projection by m gives the same function, so
    whatever elliptical attention gains over this control comes from the metric's dependence on the input.
    """

    frozen: Tensor
    """The diagonal, `[head, head_dim]`."""

    def __init__(self, site: Site, scaling: Scaling = "max") -> None:
        super().__init__(site)
        self.scaling: Scaling = scaling
        self.register_buffer("frozen", torch.ones(site.heads, site.head_dim))

    @torch.no_grad()
    def calibrate(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> None:
        """Set the diagonal from the mean over samples of each one's mean change over its tokens."""
        if ctx.previous is not None:
            change = value_change(v, ctx.previous.v, ctx.mask, "mean")[:, :, 0]
            self.frozen.copy_(scaled(change.mean(0), self.scaling))

    def metric(self, v: Tensor, ctx: Context) -> Tensor:
        """Return the frozen diagonal."""
        return self.frozen[None, :, None]


STATIC_METRIC = Variant(
    name="static_metric",
    core=StaticMetricAttention,
    source="control for Nielsen et al. 2024, arXiv:2406.13770; not from a paper",
    version=1,
    summary="Stretches each coordinate of a head by the values' average change along it over training samples.",
    formula="softmax((q * m) k' / sqrt(d)) v, m = E |v - v_previous| / max_d E |v - v_previous| over training samples",
    family="softmax",
    attention_map="row_stochastic",
    settings={"scaling": "max"},
    choices={"scaling": ("max", "mean")},
    layer_state=("previous",),
    extra_parameters="none learned; heads x head_dim frozen numbers a layer",
    pretrained="lossy",
    calibrates=True,
    control_for=("elliptical",),
)
