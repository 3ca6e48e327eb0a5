"""Cross-sample metric: elliptical attention whose stretches come from one fixed other input."""

import torch
from torch import Tensor

from ..attention import Context
from ..diagonal_metric import DiagonalMetricAttention, Scaling, scaled, value_change
from ..site import Site
from ..variant import Variant


class CrossSampleMetricAttention(DiagonalMetricAttention):
    """softmax((q * m) k' / sqrt(d)) v with m from |v - v of the layer before| of a fixed reference input.

    The reference is the first calibration sample; its m is measured by `calibrate` and frozen, so nothing couples the
    samples of a batch. Ones (plain softmax) before the first calibration and in layer 0. Unlike the static metric, this
    one is as uneven as a single input's; what elliptical attention gains over it comes from using the input's own.
    """

    frozen: Tensor
    """The reference's diagonal, `[head, head_dim]`."""

    def __init__(self, site: Site, scaling: Scaling = "max") -> None:
        super().__init__(site)
        self.scaling: Scaling = scaling
        self.register_buffer("frozen", torch.ones(site.heads, site.head_dim))

    @torch.no_grad()
    def calibrate(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> None:
        """Set the diagonal from the first sample's mean change over its tokens."""
        if ctx.previous is not None:
            mask = None if ctx.mask is None else ctx.mask[:1]
            change = value_change(v[:1], ctx.previous.v[:1], mask, "mean")
            self.frozen.copy_(scaled(change[0, :, 0], self.scaling))

    def metric(self, v: Tensor, ctx: Context) -> Tensor:
        """Return the frozen diagonal."""
        return self.frozen[None, :, None]


CROSS_SAMPLE_METRIC = Variant(
    name="cross_sample_metric",
    core=CrossSampleMetricAttention,
    source="control for Nielsen et al. 2024, arXiv:2406.13770; not from a paper",
    version=1,
    summary="Stretches each coordinate of a head by how much another, fixed input's values change along it.",
    formula="softmax((q * m) k' / sqrt(d)) v, m = c / max_d c, c = mean_t |v - v_previous| of a fixed input",
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
