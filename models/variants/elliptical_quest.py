"""Elliptical-QUEST: keys lie on a sphere, and each coordinate counts by how much the values change along it."""

from torch import Tensor

from ..attention import Context
from ..diagonal_metric import Form, Gradient, Scaling, Statistic, ValueChangeAttention
from ..direction import direction
from ..site import Site
from ..variant import Reported, Variant


class EllipticalQuestAttention(ValueChangeAttention):
    """softmax((q * m) k' / |k|) v without a factor 1 / sqrt(d): QUEST's keys under elliptical attention's metric.

    arXiv:2604.00199 combines the two in a table of adversarial accuracies; its text on how was not read at the source,
    and no code is released. Here the keys get Euclidean length 1 first, as in QUEST, and the metric m of
    arXiv:2406.13770 (see `elliptical`) multiplies the queries then, so that either part alone is the variant it comes
    from: m = 1 is QUEST, unit keys make `elliptical` equal to this up to the factor sqrt(d).

    Unit keys u = k / |k| have unequal u' M u under M = diag(m), so a dot product is no distance here either.
    `form="mahalanobis"` is the Gaussian kernel of the true distance, softmax(-(q - u)' M (q - u) / 2) v, and equals the
    dot product where M is a multiple of the identity. It is not from the paper.

    Layer 0 has no predecessor and is QUEST. A key of length 0 has no direction: it stays 0.
    """

    name = "elliptical_quest"

    def __init__(
        self,
        site: Site,
        statistic: Statistic = "mean",
        scaling: Scaling = "max",
        gradient: Gradient = "stop",
        form: Form = "dot",
    ) -> None:
        super().__init__(site, statistic, scaling, gradient, form, scale=1.0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs, shaped like `v`."""
        return super().forward(q, direction(k), v, ctx)

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return q' M u, or -(q - u)' M (q - u) / 2."""
        return super().logits(q, direction(k), v, ctx)


ELLIPTICAL_QUEST = Variant(
    name="elliptical_quest",
    core=EllipticalQuestAttention,
    source="Govindarajan et al. 2026, arXiv:2604.00199, QUEST with the metric of Nielsen et al. 2024, arXiv:2406.13770",
    version=1,
    summary="Gives all keys one length and stretches each coordinate of a head by how much the values change along it.",
    formula="softmax((q * m) k' / |k|) v, m = mean_t |v - v_previous| / max_d mean_t |v - v_previous|",
    family="elliptical",
    attention_map="row_stochastic",
    settings={"statistic": "mean", "scaling": "max", "gradient": "stop", "form": "dot"},
    choices={
        "statistic": ("mean", "median"),
        "scaling": ("max", "mean"),
        "gradient": ("stop", "open"),
        "form": ("dot", "mahalanobis"),
    },
    causal="prefix",
    layer_state=("previous",),
    logits=True,
    cost="fused",
    caveats=("How the paper combines metric and unit keys was not read at its source.",),
    detaches=("metric",),
    open_settings={"gradient": "open"},
    pretrained="lossy",
    reported=(
        Reported(
            value=72.48,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 72.50)",
            protocol="DeiT recipe",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=56.39,
            unit="%",
            of="top-1 accuracy under FGSM, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 54.23)",
            protocol="magnitudes suggest nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels)",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=47.25,
            unit="%",
            of="top-1 accuracy under PGD, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 43.65)",
            protocol="magnitudes suggest nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels)",
            source="secondary text on arXiv:2604.00199",
        ),
        Reported(
            value=28.54,
            unit="%",
            of="top-1 accuracy under AutoAttack, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 26.57)",
            protocol="magnitudes suggest nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels)",
            source="secondary text on arXiv:2604.00199",
        ),
    ),
)
