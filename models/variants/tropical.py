"""Tropical attention: sums become maxima and products sums, so every output follows one token in each coordinate."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Context
from ..initial_value import Generators
from ..site import Site
from ..variant import Variant
from ..visibility import visible_keys

CHUNK = 32
"""Queries that are compared with all keys at once: coordinates of differences are kept for these only."""


class TropicalAttention(nn.Module):
    """exp(max_j (v_j - D(q_i, k_j))) - 1 with D the Hilbert projective metric, arXiv:2505.17190.

    Queries, keys and values are x = max_i (W_oi + log(1 + relu(x_i))), max-plus maps of the logarithms of the host's
    projections; each W is shared by the heads and drawn standard normal, as in the released code.
    `symmetric`: D = max(q - k) - min(q - k) over the coordinates. `asymmetric`: D = sum(q - k) - d min(q - k). Both
    do not change where all coordinates of q or k move together.

    The released class (TropicalAttention.py) maps its input without linear projections before the max-plus ones; the
    authors' language model (github.com/KurtPask/Elliptical-Attention) has them, as here. A learned shift of the
    logarithms for each coordinate, off by default in the class and always on in the language model, which ignores its
    causal mask, is left out. The paper is said to take log(relu(x)), minus its largest coordinate,
    and exp without the ones; the released code has no such form.
    """

    def __init__(self, site: Site, distance: Literal["symmetric", "asymmetric"] = "symmetric") -> None:
        super().__init__()
        self.site = site
        self.distance = distance
        square = (site.head_dim, site.head_dim)
        self.query_map, self.key_map, self.value_map = (nn.Parameter(torch.zeros(square)) for _ in range(3))

    def draw(self, generators: Generators) -> None:
        """Draw the three maps standard normal."""
        for name, parameter in self.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generators(name)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        q, k, v = (
            _highest(torch.log1p(F.relu(x)), w)
            for x, w in ((q, self.query_map), (k, self.key_map), (v, self.value_map))
        )
        seen = visible_keys(q, ctx, self.site.causal)
        chunks = [slice(start, start + CHUNK) for start in range(0, q.shape[-2], CHUNK)]
        return torch.cat([self._read(q[..., rows, :], k, v, seen[..., rows, :]) for rows in chunks], -2)

    def _read(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """Return the outputs of some queries; 0 for one that sees nothing."""
        # `max` along an axis keeps the place of the maximum for the backward pass, `amax` would keep all differences.
        difference = q[..., :, None, :] - k[..., None, :, :]
        lowest = -(-difference).max(-1).values
        if self.distance == "symmetric":
            score = lowest - difference.max(-1).values
        else:
            score = q.shape[-1] * lowest - difference.sum(-1)
        score = score.masked_fill(~seen, torch.finfo(score.dtype).min / 2)
        highest = (score[..., None] + v[..., None, :, :]).max(-2).values
        return torch.expm1(torch.where(seen.any(-1, keepdim=True), highest, 0))


def _highest(x: Tensor, weight: Tensor) -> Tensor:
    """Return max_i (weight_oi + x_i): the product of max-plus algebra."""
    return (x[..., None, :] + weight.to(x.dtype)).max(-1).values


TROPICAL = Variant(
    name="tropical",
    core=TropicalAttention,
    source="Hashemi, Pasque, Teska and Yoshida 2025, arXiv:2505.17190, not read beyond its abstract; "
    "github.com/Baran-phys/Tropical-Attention, github.com/KurtPask/Elliptical-Attention",
    version=1,
    summary="Compares and mixes tokens in max-plus algebra: in each coordinate one token wins, nothing is averaged.",
    formula="exp(max_j (v_j - max(q_i - k_j) + min(q_i - k_j))) - 1, q, k, v max-plus maps of log(1 + relu(.))",
    family="tropical",
    attention_map="implicit",
    settings={"distance": "symmetric"},
    choices={"distance": ("symmetric", "asymmetric")},
    cost="matrix",
    extra_parameters="3 head_dim^2 a layer",
    pretrained="lossy",
    caveats=(
        "Maxima pass gradient to one token and one coordinate each: attacks by gradient see little, so believe only "
        "numbers that black-box and transfer attacks confirm.",
        "Projections below 0 are cut off before they are compared.",
        "Its paper tests algorithmic tasks; whether it trains as part of a vision transformer is not known from it.",
    ),
)
