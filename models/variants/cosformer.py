"""cosFormer: linear attention with rectified features whose weights fall with distance like a cosine."""

import math

import torch
from torch import Tensor, nn

from ..attention import Context
from ..linear_attention import linear_attention
from ..site import Site
from ..variant import Variant


class CosformerAttention(nn.Module):
    """sum_j w_ij v_j / max(sum_j w_ij, eps), w_ij = relu(q_i) relu(k_j)' cos(pi (i - j) / (2 M)), arXiv:2202.08791.

    M is the number of tokens at hand, so every weight is non-negative. The cosine of a difference is a product of
    cosines plus one of sines, so the weights are dot products of features twice as wide. Queries and keys are not
    divided by a power of d. The paper's ratio has no eps; the released code (github.com/OpenNLPLab/cosFormer) lets no
    sum of weights fall below 1e-6, the default here. With eps 0, a query whose weights are all 0 reads 0.
    """

    def __init__(self, site: Site, eps: float = 1e-6) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"cosformer with eps {eps}: allowed are 0 (the paper's) and above; set eps in that range")
        self.site = site
        self.eps = eps

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        tokens = q.shape[-2]
        place = torch.arange(tokens, device=q.device, dtype=torch.promote_types(q.dtype, torch.float32))
        angle = math.pi / 2 * place[:, None] / tokens
        q, k = (torch.cat((x.relu() * angle.cos(), x.relu() * angle.sin()), -1) for x in (q, k))
        return linear_attention(q, k, v, causal=self.site.causal, mask=ctx.mask, floor=self.eps)


COSFORMER = Variant(
    name="cosformer",
    core=CosformerAttention,
    source="Qin et al. 2022, arXiv:2202.08791; github.com/OpenNLPLab/cosFormer",
    version=1,
    summary="Replaces exp(q k') by the dot product of rectified queries and keys times a cosine of their distance.",
    formula="sum_j w_ij v_j / max(sum_j w_ij, eps), w_ij = relu(q_i) relu(k_j)' cos(pi (i - j) / (2 N))",
    family="linear",
    attention_map="nonnegative",
    settings={"eps": 1e-6},
    equivariant=False,
    cost="linear",
    pretrained="lossy",
    caveats=(
        "Distance is that of the tokens' order, so two patches above each other count as far apart.",
        "The weights depend on the number of tokens: another length at test time is another function.",
        "Rectified coordinates that are 0 pass no gradient to queries and keys, which can blind an attack.",
    ),
)
