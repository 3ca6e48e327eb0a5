"""Registers: a few learned tokens beside the patches give attention a place to put what belongs to no patch."""

from ..site import Site
from ..variant import Variant
from .softmax import SoftmaxAttention


class RegisterAttention(SoftmaxAttention):
    """softmax(q k' / sqrt(d)) v over the patches and `count` learned tokens, arXiv:2309.16588.

    The backbone puts the tokens in front; they attend and are attended to like patches, and the head does not read
    them. The paper uses 4 beside the class token of networks with 256 patches and more.
    """

    def __init__(self, site: Site, count: int = 4) -> None:
        super().__init__(site)
        if count < 1:
            raise ValueError(f"registers with count {count}: allowed from 1; set count to at least 1, or use softmax")


REGISTERS = Variant(
    name="registers",
    core=RegisterAttention,
    source="Darcet et al. 2024, Vision Transformers Need Registers, arXiv:2309.16588",
    version=1,
    summary="Adds learned tokens that stand for no patch, so that no patch has to serve as a scratchpad.",
    formula="softmax(q k' / sqrt(d)) v over patches and `count` learned tokens",
    family="sink",
    attention_map="row_stochastic",
    settings={"count": 4},
    causal="prefix",
    minimum_tokens=64,
    extra_tokens="count",
    logits=True,
    cost="fused",
    extra_parameters="count x dim, once a network",
    pretrained="lossy",
    caveats=(
        "Under a causal mask the registers come first and see no patch: they are a learned prefix there.",
        "Metrics of tokens look at the patches alone.",
    ),
)
