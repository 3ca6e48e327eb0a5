"""Lipschitz L2 attention: queries are keys, distance replaces the dot product, and no input makes the layer steep."""

from torch import Tensor

from ..attention import QKV, Weights
from ..variant import Variant
from .l2 import L2Attention


class TiedL2Attention(L2Attention):
    """P X A W_V' with P = softmax(-|q_i - q_j|^2 / sqrt(d)) and A = W_Q' W_Q / sqrt(d), arXiv:2006.04710, 3.2.

    W_Q and W_V are one head's rows of the projections, as torch stores them. With queries and keys tied and the factor
    A on the value path, the layer has a Lipschitz constant on all of space; plain attention has none, and `l2` is not
    covered by the proof. The bound (theorem 3.2, recalled and not read at its source) is

        sqrt(N / d) (4 c + 1) sqrt(sum over heads of |W_Q|^4 |W_V|^2) |W_O|,    c exp(c + 1) = N - 1,

    with spectral norms and N tokens. The fourth power rests on scaling, not on memory: weights s W_Q at inputs X / s
    give s times the outputs, so the slope grows with s^2. The host's biases stay: the one of the queries cancels in the
    distances, and both add only constants to the values, which leaves the Lipschitz constant alone.

    X A W_V' is q (W_Q W_V' / sqrt(d)), one square of `head_dim` for each head.
    """

    omits = ("k",)

    def project(self, x: Tensor, weights: Weights) -> QKV:
        """Return the queries, the same as keys, and values that went through A."""
        heads, head_dim = self.site.heads, self.site.head_dim
        q = weights.q(x).view(*x.shape[:2], heads, head_dim).transpose(1, 2)
        query_rows, value_rows = (w.weight.view(heads, head_dim, -1) for w in (weights.q, weights.v))
        through = self.site.scale * query_rows @ value_rows.transpose(-2, -1)
        return QKV(q, q, q @ through + weights.v.bias.view(heads, 1, head_dim))


L2_TIED = Variant(
    name="l2_tied",
    core=TiedL2Attention,
    source="Kim, Papamakarios and Mnih 2021, arXiv:2006.04710, section 3.2, L2 self-attention",
    version=1,
    summary="Reads tokens by their distance with queries as keys and a second pass through them: a Lipschitz layer.",
    formula="softmax(-|q - k|^2 / sqrt(d)) v, k = q, v = x W_q' W_q W_v' / sqrt(d)",
    family="l2",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    caveats=(
        "The bound grows with the weights and with the number of tokens, and nothing here keeps the weights small.",
        "Formula and bound were recalled, not read at their source.",
    ),
    extra_parameters="none; one projection fewer",
    pretrained="impossible",
)
