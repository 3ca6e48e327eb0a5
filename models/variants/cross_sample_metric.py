"""Cross-sample metric: elliptical attention whose stretches come from one fixed other input."""

from torch import Tensor

from ..diagonal_metric import FrozenMetricAttention
from ..variant import Variant


class CrossSampleMetricAttention(FrozenMetricAttention):
    """softmax((q * m) k' / sqrt(d)) v with m from |v - v of the layer before| of a fixed reference input.

    The reference is the first calibration sample; its m is measured by `calibrate` and frozen, so nothing couples the
    samples of a batch. Ones (plain softmax) before the first calibration and in layer 0. Unlike the static metric, this
    one is as uneven as a single input's; what elliptical attention gains over it comes from using the input's own.
    """

    def measured_change(self, change: Tensor) -> Tensor:
        """Return the first sample's own."""
        return change[0]


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
    logits=True,
    cost="fused",
    pretrained="lossy",
    calibrates=True,
    control_for=("elliptical",),
)
