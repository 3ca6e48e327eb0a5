"""Softmax with one more in the denominator: a query may read nothing at all."""

from torch import Tensor, nn

from ..attention import Context
from ..sink import sink_attention
from ..site import Site
from ..variant import Variant


class SoftmaxPlusOneAttention(nn.Module):
    """exp(l_ij) / (1 + sum_j exp(l_ij)) v_j with l = q k' / sqrt(d), Miller's softmax_1.

    The one is the exponential of a zero logit, so this is softmax with an all-zero key whose value is zero.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        sink = k.new_zeros(1, 1, 1, k.shape[-1])
        return sink_attention(q, k, v, sink, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


SOFTMAX_PLUS_ONE = Variant(
    name="softmax_plus_one",
    core=SoftmaxPlusOneAttention,
    source="Miller 2023, Attention Is Off By One, evanmiller.org/attention-is-off-by-one.html",
    version=1,
    summary="Adds one to the softmax denominator, so that a query whose logits are all low reads almost nothing.",
    formula="exp(l) v / (1 + sum exp(l)), l = q k' / sqrt(d)",
    family="sink",
    attention_map="nonnegative",
    cost="fused",
    pretrained="lossy",
    caveats=(
        "Its source is an essay without experiments.",
        "The one weighs less the more tokens there are: of N equal logits of zero it takes 1 / (N + 1).",
    ),
)
