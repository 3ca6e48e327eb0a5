"""QUEST attention: keys lie on a sphere, so only their direction counts and each query sets its own sharpness."""

from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..direction import direction
from ..site import Site
from ..variant import Reported, Variant


class QuestAttention(nn.Module):
    """softmax(q k' / |k|) v without a factor 1 / sqrt(d), arXiv:2604.00199.

    A key of length 0 has no direction: its logit is 0 for every query.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return softmax_attention(q, direction(k), v, scale=1.0, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return q k' / |k|."""
        return q @ direction(k).transpose(-2, -1)


QUEST = Variant(
    name="quest",
    core=QuestAttention,
    source="Govindarajan et al. 2026, QUEST, arXiv:2604.00199",
    version=1,
    summary="Divides every key by its length, so no key attracts by size and each query sets its own sharpness.",
    formula="softmax(q k' / |k|) v",
    family="key_norm",
    attention_map="row_stochastic",
    logits=True,
    cost="fused",
    pretrained="lossy",
    reported=(
        Reported(
            value=73.4,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, ViT-Ti (softmax in the same table: 72.6)",
            protocol="DeiT recipe, mean of several runs",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=55.0,
            unit="%",
            of="error on ImageNet-C, ViT-Ti (softmax in the same table: 55.7)",
            protocol="DeiT recipe, mean of several runs",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=45.26,
            unit="%",
            of="top-1 accuracy under PGD, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 43.65)",
            protocol="magnitudes suggest nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels)",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=27.29,
            unit="%",
            of="top-1 accuracy under AutoAttack, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 26.57)",
            protocol="magnitudes suggest nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels)",
            source="secondary text on arXiv:2604.00199",
        ),
    ),
)
