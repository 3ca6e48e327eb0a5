"""Wide softmax: plain attention whose network has as many parameters as that of another variant."""

from ..site import Site
from ..variant import Reported, Variant
from .softmax import SoftmaxAttention


class WideSoftmaxAttention(SoftmaxAttention):
    """softmax(q k' / sqrt(d)) v in a network whose MLPs are widened until its parameters match those of `donor`.

    The control for every variant that learns more than softmax attention does: what the donor gains over it does not
    come from the number of its parameters. One hidden unit a block is the finest step that leaves the heads alone.
    """

    def __init__(self, site: Site, donor: str = "gated") -> None:
        super().__init__(site)
        self.donor = donor


WIDE_SOFTMAX = Variant(
    name="wide_softmax",
    core=WideSoftmaxAttention,
    source="control; a wider softmax is the fair rival in arXiv:2604.03190",
    version=1,
    summary="Softmax attention in a network with wider MLPs, as many parameters in all as the donor's network.",
    formula="softmax(q k' / sqrt(d)) v",
    family="softmax",
    attention_map="row_stochastic",
    settings={"donor": "gated"},
    parameters_of="donor",
    logits=True,
    cost="fused",
    extra_parameters="as many as the donor's, in the MLPs",
    pretrained="impossible",
    control_for=("gated",),
    reported=(
        Reported(
            value=69.0,
            unit="perplexity",
            of="WikiText-103 test, small model as wide as twicing is expensive (softmax 72.2, twicing 69.6)",
            protocol="independent replication, trained on 10 million tokens",
            source="secondary text on arXiv:2604.03190",
        ),
    ),
)
