"""Learned sink: each head learns how much attention goes nowhere."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Context
from ..sink import sink_attention
from ..site import Site
from ..variant import Variant


class LearnedSinkAttention(nn.Module):
    """exp(l_ij) / (exp(s_h) + sum_j exp(l_ij)) v_j with l = q k' / sqrt(d) and one learned logit s for each head.

    As in gpt-oss (gpt_oss/torch/model.py), where the logits of all heads are a parameter that is always loaded; here
    they start at 0, where this is `softmax_plus_one`. At minus infinity it is softmax.

    The logit is one more coordinate: 1 in every query, s / scale in the sink's key and 0 in the others.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.sink = nn.Parameter(torch.zeros(site.heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        sink = F.pad(self.sink[None, :, None, None] / self.site.scale, (k.shape[-1], 0))
        q, k = F.pad(q, (0, 1), value=1.0), F.pad(k, (0, 1))
        return sink_attention(q, k, v, sink, scale=self.site.scale, causal=self.site.causal, mask=ctx.mask)


LEARNED_SINK = Variant(
    name="learned_sink",
    core=LearnedSinkAttention,
    source="OpenAI 2025, gpt-oss, github.com/openai/gpt-oss",
    version=1,
    summary="Gives each head a learned logit in the softmax denominator, for attention that goes to no token.",
    formula="exp(l) v / (exp(s) + sum exp(l)), l = q k' / sqrt(d), s one number a head",
    family="sink",
    attention_map="nonnegative",
    cost="fused",
    extra_parameters="heads a layer",
    pretrained="lossy",
    caveats=("It comes with a released language model, not with an experiment that isolates it.",),
)
