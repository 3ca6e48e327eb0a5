"""KDE attention: keys are samples of a density on the sphere, and a query reads them by their squared distance."""

from typing import Literal

from torch import Tensor, nn

from ..attention import Context, softmax_attention
from ..direction import direction
from ..site import Site
from ..variant import Reported, Variant


class KdeAttention(nn.Module):
    """softmax(-|q - u|^2 / sqrt(d)) v with unit keys u = k / |k|, kernel density attention of arXiv:2210.05794.

    |q|^2 and |u|^2 = 1 are the same along a row and cancel, which leaves softmax(2 q u' / sqrt(d)): QUEST at another
    temperature. This is the released image model (`form="distance"`), on which RKDE, MoM and SPKDE build. The released
    language model takes the dot product softmax(q u' / sqrt(d)), half as sharp (`form="dot"`).

    A key of length 0 has no direction and logit 0 here; the released distance would prefer it to unit keys by
    1 / sqrt(d).
    """

    def __init__(self, site: Site, form: Literal["distance", "dot"] = "distance") -> None:
        super().__init__()
        self.site = site
        self.scale = 2 * site.scale if form == "distance" else site.scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return softmax_attention(q, direction(k), v, scale=self.scale, causal=self.site.causal, mask=ctx.mask)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return 2 q u' / sqrt(d), or half of it; the squares that cancel along a row are left out."""
        return self.scale * q @ direction(k).transpose(-2, -1)


KDE = Variant(
    name="kde",
    core=KdeAttention,
    source="Han et al. 2023, arXiv:2210.05794, KDE attention; github.com/aaronhan223/robust_transformer",
    version=1,
    summary="Divides every key by its length and weighs values by a Gaussian kernel around the query.",
    formula="softmax(-|q - u|^2 / sqrt(d)) v, u = k / |k|",
    family="key_norm",
    attention_map="row_stochastic",
    settings={"form": "distance"},
    choices={"form": ("distance", "dot")},
    logits=True,
    cost="fused",
    caveats=("It is QUEST with the factor 2 / sqrt(d) on its logits, not a mechanism of its own.",),
    pretrained="lossy",
    reported=(
        Reported(
            value=72.68,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, DeiT-Tiny (softmax in the same code: 71.83)",
            protocol="DeiT recipe, one seed",
            source="training log in github.com/aaronhan223/robust_transformer",
        ),
        Reported(
            value=43.38,
            unit="%",
            of="top-1 accuracy under PGD-20, ImageNet-1k validation, DeiT-Tiny (softmax in the same code: 43.84)",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), step 0.15 eps, random start, "
            "no box clipping, the model's own predictions as labels; one seed",
            source="log in github.com/aaronhan223/robust_transformer",
        ),
        Reported(
            value=55.26,
            unit="%",
            of="top-1 accuracy under FGM, ImageNet-1k validation, DeiT-Tiny (softmax in the same code: 54.62)",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), one step, no box clipping, "
            "the model's own predictions as labels; one seed",
            source="log in github.com/aaronhan223/robust_transformer",
        ),
    ),
)
