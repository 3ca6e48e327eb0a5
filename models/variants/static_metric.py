"""Static metric: elliptical attention whose stretches are the training set's average, the same for every input."""

from torch import Tensor

from ..diagonal_metric import FrozenMetricAttention
from ..variant import Variant


class StaticMetricAttention(FrozenMetricAttention):
    """softmax((q * m) k' / sqrt(d)) v with m from the mean of |v - v of the layer before| over calibration samples.

    m is one number for each head and coordinate, measured by `calibrate` and frozen; ones (plain softmax) before the
    first calibration and in layer 0. Multiplying the rows of the query projection by m gives the same function, so
    whatever elliptical attention gains over this control comes from the metric's dependence on the input.
    """

    def measured_change(self, change: Tensor) -> Tensor:
        """Return the mean over samples."""
        return change.mean(0)


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
    logits=True,
    cost="fused",
    pretrained="lossy",
    calibrates=True,
    control_for=("elliptical",),
)
