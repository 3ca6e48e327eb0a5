"""Linear attention: weights are dot products of positive features, so no matrix of tokens x tokens is needed."""

import torch
from torch import Tensor, nn

from ..attention import Context
from ..linear_attention import linear_attention
from ..site import Site
from ..variant import Variant


class LinearAttention(nn.Module):
    """phi(q) sum_j phi(k_j)' v_j / (eps + phi(q) sum_j phi(k_j)'), phi(x) = elu(x) + 1, arXiv:2006.16236.

    phi is x + 1 above 0 and exp(x) below, coordinate by coordinate. Queries and keys are not divided by a power of d.
    The paper's ratio has no eps; the released code (github.com/idiap/fast-transformers) adds 1e-6, the default here.
    With eps 0, a query whose weights are all 0 reads 0. Under a causal mask both sums run up to the query.
    """

    def __init__(self, site: Site, eps: float = 1e-6) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"linear with eps {eps}: allowed are 0 (the paper's) and above; set eps in that range")
        self.site = site
        self.eps = eps

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q, k = _features(q), _features(k)
        return linear_attention(q, k, v, causal=self.site.causal, mask=ctx.mask, eps=self.eps)


def _features(x: Tensor) -> Tensor:
    """Return elu(x) + 1 without taking exp(x) - 1 + 1, which loses the small ones."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


LINEAR = Variant(
    name="linear",
    core=LinearAttention,
    source="Katharopoulos et al. 2020, arXiv:2006.16236; github.com/idiap/fast-transformers",
    version=1,
    summary="Replaces exp(q k') by the dot product of positive features of query and key, elu + 1.",
    formula="phi(q) sum_j phi(k_j)' v_j / (eps + phi(q) sum_j phi(k_j)'), phi(x) = elu(x) + 1",
    family="linear",
    attention_map="nonnegative",
    settings={"eps": 1e-6},
    cost="linear",
    pretrained="lossy",
    caveats=(
        "The map has rank head_dim at most and is flat: it cannot point at one token as softmax can.",
        "Rows sum to 1 up to eps over the sum of their weights, which is small unless features are near 0.",
    ),
)
