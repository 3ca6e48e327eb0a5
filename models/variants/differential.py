"""Differential attention: what one head attends to, less what its partner attends to."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..initial_value import Generators
from ..site import Site
from ..variant import Variant

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class DifferentialAttention(nn.Module):
    """(1 - lambda_init) RMSNorm((A_1 - lambda A_2) v) for each pair of heads, equations 1 to 3 of arXiv:2410.05258.

    A_1 and A_2 are the softmax attention of the host's heads 2i and 2i + 1, v their values side by side, of width
    2 head_dim; the result is cut back into the two heads. lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init is
    one number a layer, its four vectors of head_dim drawn normal with standard deviation 0.1, and lambda_init =
    0.8 - 0.6 exp(-0.3 layer) with layers from 0 (from 1 in the paper). The norm has one gain for each of the
    2 head_dim coordinates, shared by the pairs, and epsilon 1e-5. All as in the authors' code and in timm.

    The projections keep their sizes: H heads of softmax attention become H / 2 differential ones, as in the paper.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        if site.heads % 2:
            raise ValueError(
                f"differential with {site.heads} heads: its heads work in pairs; allowed: even numbers; use a network "
                "with an even number of heads"
            )
        self.site = site
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * site.layer)
        for name in LAMBDAS:
            self.register_parameter(name, nn.Parameter(torch.zeros(site.head_dim)))
        self.gain = nn.Parameter(torch.ones(2 * site.head_dim))

    def draw(self, generators: Generators) -> None:
        """Draw the vectors behind lambda."""
        for name in LAMBDAS:
            vector = self.get_parameter(name)
            vector.copy_(0.1 * torch.randn(vector.shape, generator=generators(name)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        pair = torch.cat((v[:, 0::2], v[:, 1::2]), -1)
        first, second = (
            softmax_attention(
                q[:, i::2], k[:, i::2], pair, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask
            )
            for i in (0, 1)
        )
        y = first - self._weight().to(first.dtype) * second
        y = (1 - self.lambda_init) * F.rms_norm(y, self.gain.shape, self.gain.to(y.dtype), eps=1e-5)
        return torch.stack(y.chunk(2, -1), 2).flatten(1, 2)

    def _weight(self) -> Tensor:
        vectors = (self.get_parameter(name) for name in LAMBDAS)
        q1, k1, q2, k2 = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in vectors)
        return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.lambda_init


DIFFERENTIAL = Variant(
    name="differential",
    core=DifferentialAttention,
    source="Ye et al. 2025, arXiv:2410.05258, equations 1 to 3; Diff-Transformer in github.com/microsoft/unilm",
    version=1,
    summary="Subtracts the attention of a second head from that of a first, so that what both attend to cancels.",
    formula="(1 - l0) RMSNorm((A_1 - l A_2) [v_1, v_2]), l = exp(a.b) - exp(c.d) + l0, l0 = 0.8 - 0.6 exp(-0.3 layer)",
    family="differential",
    attention_map="implicit",
    heads_multiple_of=2,
    cost="fused",
    extra_parameters="6 head_dim a layer",
    pretrained="lossy",
    caveats=(
        "Pairs of heads share one output norm, which rescales every token's output to a fixed size: a small difference "
        "of two maps is amplified.",
        "It has been found more fragile under attack than softmax (arXiv:2510.00517): higher success rates on vision "
        "transformers, and a crossover with depth at small eps.",
    ),
)
