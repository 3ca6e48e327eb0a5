"""Sinkformer: attention whose columns are balanced as well as its rows, so no token is read more than the others."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..site import Site
from ..variant import Reported, Variant
from ..visibility import softmax_over, visible_keys


class SinkhornAttention(nn.Module):
    """A v, A the Sinkhorn normalisation of exp(q k' / sqrt(d)), section 3 of arXiv:2110.11773.

    Rows and columns are divided by their sums in turn, rows first, in log space; `iterations` counts both, as the
    released code does, so 1 is softmax. The number is odd, as in the released experiments (1 to 11; one script on
    point clouds has 10): rows are divided last and sum to 1, columns do so in the limit. The released code gives both
    sides the mass 1 / N and multiplies by N at the end, which is the same map. It also stops early once the potentials
    stand still, which looks at the data of the whole batch; that is left out.

    A = softmax(q k' / sqrt(d) + g), where g, one number for each key, gathers all divisions of columns. In the released
    text classifier no gradient flows through g (`gradient="stop"`); its vision transformers, and the copy in
    github.com/ctamayor/NeurIPS-Robustness-ViT, have that line commented out, and its networks for point clouds lack it
    (`open`). The values are the same. The copy leaves out the factor N, so its rows sum to 1 / N.

    Rows and columns run over the real tokens; in the released text classifier padding tokens query too, and so weigh
    in the columns' sums. A column's sum looks at later queries, so there is no causal form.
    """

    def __init__(self, site: Site, iterations: int = 3, gradient: Literal["stop", "open"] = "stop") -> None:
        super().__init__()
        if site.causal:
            raise ValueError(
                "sinkformer under a causal mask: the sum of a column runs over later tokens; allowed are "
                "bidirectional networks; use softmax instead"
            )
        if iterations < 1 or iterations % 2 == 0:
            raise ValueError(
                f"sinkformer with {iterations} iterations: allowed are odd numbers from 1, so that rows come last and "
                "sum to 1; set iterations to one of them"
            )
        self.site = site
        self.rounds = iterations // 2
        self.gradient = gradient

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return softmax_over(self.logits(q, k, v, ctx), visible_keys(q, ctx, False)).to(v.dtype) @ v

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return scale q k' + g, in float32 or wider."""
        logits = self.site.scale * q @ k.transpose(-2, -1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        potential = self._column_potential(logits.detach() if self.gradient == "stop" else logits, ctx)
        return logits + potential

    def _column_potential(self, logits: Tensor, ctx: Context) -> Tensor:
        """Return g, `[batch, head, 1, key]`; 0 where nothing is done but the rows' softmax."""
        lowest = torch.finfo(logits.dtype).min
        column = torch.zeros_like(logits[..., :1, :])
        for _ in range(self.rounds):
            rows = logits + column
            if ctx.mask is not None:
                rows = rows.masked_fill(~ctx.mask[:, None, None, :], lowest)
            columns = logits - rows.logsumexp(-1, keepdim=True)
            if ctx.mask is not None:
                columns = columns.masked_fill(~ctx.mask[:, None, :, None], lowest)
            column = -columns.logsumexp(-2, keepdim=True)
        return column


SINKFORMER = Variant(
    name="sinkformer",
    core=SinkhornAttention,
    source="Sander et al. 2022, arXiv:2110.11773, section 3; github.com/michaelsdr/sinkformers",
    version=1,
    summary="Divides the attention map by its column sums and row sums in turn, towards a doubly stochastic map.",
    formula="softmax(q k' / sqrt(d) + g) v, g_j = -log sum_i exp(q_i k_j' / sqrt(d) + f_i), "
    "f_i = -log sum_j exp(q_i k_j' / sqrt(d) + g_j), repeated from g = 0",
    family="sinkhorn",
    attention_map="row_stochastic",
    settings={"iterations": 3, "gradient": "stop"},
    choices={"gradient": ("stop", "open")},
    causal="no",
    detaches=("column potential",),
    open_settings={"gradient": "open"},
    logits=True,
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "With gradient stop, as in the released text classifier, attacks see part of the gradient only; the released "
        "vision transformers have gradient open.",
        "With 3 iterations the columns are balanced once and need not sum to 1.",
    ),
    reported=(
        Reported(
            value=5.1,
            unit="%",
            of="largest relative gain in accuracy over the next of softmax, sigmoid, linear and cosine attention, "
            "small vision transformers on CIFAR-10, CIFAR-100 and Imagenette, training images corrupted (least: 0.1)",
            protocol="3 iterations, gradient open; corruptions only, no adversarial attack; the softmax there divides "
            "logits by the root of the width of all heads and the doubly stochastic map by that of one, so the two "
            "differ in temperature as well; rows of the doubly stochastic map sum to 1 / tokens there, so its outputs "
            "are that much smaller; number of seeds not read",
            source="secondary text on arXiv:2507.20453; settings in github.com/ctamayor/NeurIPS-Robustness-ViT",
        ),
    ),
)
