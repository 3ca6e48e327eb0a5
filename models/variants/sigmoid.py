"""Sigmoid attention: every key is weighed for itself, without competing with the others."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..site import Site
from ..variant import Variant
from ..visibility import visible_keys


class SigmoidAttention(nn.Module):
    """sigmoid(q k' / sqrt(d) + b) v with b = -log N, arXiv:2409.04431.

    At logits of zero the weights of a row then sum to nearly 1, as those of softmax do. `length`: N is the number of
    tokens that the network is built for, a constant, as in the released code, whose bias is a constant of the
    configuration (-log 8192 or -10 in its examples, also under a causal mask). `visible`: N is the number of real
    tokens that the query may read, so masked tokens do not count, and the n-th token has b = -log n under a causal
    mask.
    """

    def __init__(self, site: Site, bias: Literal["length", "visible"] = "length") -> None:
        super().__init__()
        self.site = site
        self.bias = bias

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        logits = self.site.scale * q @ k.transpose(-2, -1)
        seen = visible_keys(q, ctx, self.site.causal)
        if self.bias == "length":
            logits = logits - math.log(self.site.tokens)
        else:
            logits = logits - seen.sum(-1, keepdim=True).clamp(min=1).to(logits.dtype).log()
        return (torch.sigmoid(logits) * seen) @ v


SIGMOID = Variant(
    name="sigmoid",
    core=SigmoidAttention,
    source="Ramapuram et al. 2025, arXiv:2409.04431; github.com/apple/ml-sigmoid-attention",
    version=1,
    summary="Replaces the softmax by a sigmoid of each logit, shifted by the log of the number of tokens.",
    formula="sigmoid(q k' / sqrt(d) - log N) v",
    family="sigmoid",
    attention_map="nonnegative",
    settings={"bias": "length"},
    choices={"bias": ("length", "visible")},
    cost="matrix",
    pretrained="lossy",
    caveats=(
        "The bias ties it to a number of tokens: another length at test time is another function.",
        "Rows do not sum to 1, so a branch's size grows with the logits; LayerScale or query-key norms, which the "
        "paper is said to need for stability, are not part of this variant.",
    ),
)
