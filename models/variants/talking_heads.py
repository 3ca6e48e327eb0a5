"""Talking heads: heads mix their logits before the softmax and their attention maps after it."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import Context
from ..head_mixing import mixed_heads
from ..initial_value import Generators
from ..site import Site
from ..variant import Variant
from ..visibility import softmax_over, visible_keys


class TalkingHeadsAttention(nn.Module):
    """softmax over keys of the mixed logits, mixed again, times v; talking-heads attention, arXiv:2003.02436.

    With l_h = q_h k_h' / sqrt(d): A_g = softmax(sum_h B_hg l_h) and y_g = (sum_h C_hg A_h) v_g. B and C are learned,
    heads x heads, and here as many heads talk as listen.

    `drawn` starts B and C at random (Xavier uniform, the default initialiser of the layer in
    tensorflow/models, official/nlp); `identity` starts as softmax attention. How the paper itself starts them was not
    read at its source. `bias` adds one number a head after each mixing, as CaiT does (timm, models/cait.py): before the
    softmax it cancels, so only the second one is here; it is a uniform weight on every visible key.
    """

    def __init__(self, site: Site, start: Literal["drawn", "identity"] = "drawn", bias: bool = False) -> None:
        super().__init__()
        self.site = site
        self.start = start
        self.before = nn.Parameter(torch.eye(site.heads))
        self.after = nn.Parameter(torch.eye(site.heads))
        self.bias = nn.Parameter(torch.zeros(site.heads)) if bias else None

    def draw(self, generators: Generators) -> None:
        """Draw the two mixing matrices, unless they start as identities."""
        if self.start == "drawn":
            for name in ("before", "after"):
                nn.init.xavier_uniform_(self.get_parameter(name), generator=generators(name))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        logits = self.site.scale * q @ k.transpose(-2, -1)
        seen = visible_keys(q, ctx, self.site.causal)
        maps = mixed_heads(softmax_over(mixed_heads(logits, self.before), seen), self.after)
        if self.bias is not None:
            maps = maps + self.bias.to(maps.dtype)[:, None, None] * seen
        return maps.to(v.dtype) @ v


TALKING_HEADS = Variant(
    name="talking_heads",
    core=TalkingHeadsAttention,
    source="Shazeer et al. 2020, arXiv:2003.02436",
    version=1,
    summary="Mixes the heads' logits before the softmax and their attention maps after it, by learned matrices.",
    formula="(sum_h C_hg softmax(sum_f B_fh q_f k_f' / sqrt(d))) v_g",
    family="head_mixing",
    attention_map="signed",
    settings={"start": "drawn", "bias": False},
    choices={"start": ("drawn", "identity"), "bias": (False, True)},
    cost="matrix",
    extra_parameters="2 heads x heads a layer, and heads more with bias",
    pretrained="lossy",
    caveats=(
        "Started at random, the maps of a head begin as signed mixtures that need not sum to 1.",
        "With start identity it enters softmax weights as the same function.",
    ),
)
