"""ProTransformer: each output is a robust centre of the values, which far-off values cannot drag along."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..kernel_density import squared_distance
from ..site import Site
from ..variant import Variant
from ..visibility import softmax_over, visible_keys

EPS = 0.01
"""Added to distances before dividing, and least weight under the MCP penalty, in units of the values."""


class ProTransformerAttention(nn.Module):
    """z with the least sum_j A_ij rho(|v_j - z|), A softmax attention, arXiv:2410.23182.

    `steps` of iteratively reweighted least squares from z = A v: z = sum_j A_ij w_ij v_j / sum_j A_ij w_ij with w_ij
    from r = |v_j - z_i| + 0.01 and t = `threshold`:
    `l1`: 1 / r; `huber`: t / r, at most 1; `mcp` (the minimax concave penalty): 1 / r - 1 / t, at least 0.01.

    The released code takes the distances without gradient (`gradient="stop"`); `open` is the same function with every
    path differentiable. Its defaults are those of the command in its README, MCP with t = 4 and three steps, set for
    the values of BERT; t is in units of the values. The step length, 1 there, is left out.
    """

    def __init__(
        self,
        site: Site,
        penalty: Literal["l1", "huber", "mcp"] = "mcp",
        steps: int = 3,
        threshold: float = 4.0,
        gradient: Literal["stop", "open"] = "stop",
    ) -> None:
        super().__init__()
        if steps < 0 or threshold <= 0:
            raise ValueError(
                f"protransformer with {steps} steps and threshold {threshold}: allowed are 0 or more steps and a "
                "threshold above 0; set them inside these ranges"
            )
        self.site = site
        self.penalty = penalty
        self.steps = steps
        self.threshold = threshold
        self.gradient = gradient

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        logits = self.site.scale * q @ k.transpose(-2, -1)
        attention = softmax_over(logits, visible_keys(q, ctx, self.site.causal))
        z = attention @ v
        for _ in range(self.steps):
            weighted = attention * self._weight(z, v).to(attention.dtype)
            total = weighted.sum(-1, keepdim=True)
            z = weighted / torch.where(total == 0, 1, total) @ v
        return z

    def _weight(self, z: Tensor, v: Tensor) -> Tensor:
        """Return the weight of each value for each output, `[batch, head, query, key]`."""
        if self.gradient == "stop":
            z, v = z.detach(), v.detach()
        square = squared_distance(z, v)
        # Distances of 0 have no gradient; the square is replaced before the root, whose slope there is infinite.
        same = square == 0
        r = torch.where(same, 0, torch.where(same, 1, square).sqrt()) + EPS
        if self.penalty == "l1":
            return 1 / r
        if self.penalty == "huber":
            return (self.threshold / r).clamp(max=1)
        return (1 / r - 1 / self.threshold).clamp(min=EPS)


PROTRANSFORMER = Variant(
    name="protransformer",
    core=ProTransformerAttention,
    source="Hou et al. 2024, arXiv:2410.23182, not read beyond its abstract; github.com/chris-hzc/ProTransformer",
    version=1,
    summary="Replaces the weighted mean of the values by a robust centre, found by reweighting distant values down.",
    formula="argmin_z sum_j A_ij rho(|v_j - z|) by reweighting from z = A v, A = softmax(q k' / sqrt(d))",
    family="protransformer",
    attention_map="row_stochastic",
    settings={"penalty": "mcp", "steps": 3, "threshold": 4.0, "gradient": "stop"},
    choices={"penalty": ("l1", "huber", "mcp"), "gradient": ("stop", "open")},
    detaches=("distances",),
    open_settings={"gradient": "open"},
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "The matrix on the values depends on the values: its rows sum to 1 and outputs stay among the values, but it "
        "is no linear map.",
        "The threshold of mcp and huber is in units of the values, so its bite depends on how large a network makes "
        "them: huber is plain attention where all distances are below it.",
        "The paper plugs it into trained networks without training; a row trained with it is another experiment.",
        "Values beyond the threshold of mcp keep one constant least weight, so no gradient tells how far off they are, "
        "and a value so far off that the mean lies beyond the threshold of all values goes unnoticed.",
    ),
)
