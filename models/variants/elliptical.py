"""Elliptical attention: queries weigh each coordinate by how much the values change along it from layer to layer."""

from ..diagonal_metric import Form, Gradient, Scaling, Statistic, ValueChangeAttention
from ..site import Site
from ..variant import Reported, Variant


class EllipticalAttention(ValueChangeAttention):
    """softmax((q * m) k' / sqrt(d)) v with m from |v - v of the layer before|, section 3 of arXiv:2406.13770.

    m is one number for each sample, head and coordinate: the change of the projected values between consecutive layers,
    summarised over tokens and scaled by its largest (`max`) or average (`mean`) coordinate. The paper divides the
    change by a step delta; a constant delta cancels in either scaling, so it is no setting. The released code computes
    m without gradient (`gradient="stop"`); `open` is the same function with every path differentiable. Layer 0 has no
    predecessor and attends plainly. A head whose values do not change at all has m = 1.

    The paper derives attention from a Gaussian kernel of the Mahalanobis distance and computes the dot product above,
    which leaves out k' M k with M = diag(m) (`form="dot"`, paper and released code). `form="mahalanobis"` keeps it:
    softmax(-(q - k)' M (q - k) / (2 sqrt(d))) v, which equals the dot product where all keys have the same k' M k, so
    the factor 1 / 2 puts both forms at one temperature. It is not from the paper.

    Where the site is causal, m belongs to each query: the mean over the tokens up to it, scaled token by token. The
    released language model averages over future tokens too. A prefix median is not linear in the tokens: it raises
    ValueError.
    """

    name = "elliptical"

    def __init__(
        self,
        site: Site,
        statistic: Statistic = "mean",
        scaling: Scaling = "max",
        gradient: Gradient = "stop",
        form: Form = "dot",
    ) -> None:
        super().__init__(site, statistic, scaling, gradient, form if site.layer > 0 else "dot")


ELLIPTICAL = Variant(
    name="elliptical",
    core=EllipticalAttention,
    source="Nielsen et al. 2024, arXiv:2406.13770, section 3; github.com/stefvk/Elliptical-Attention",
    version=1,
    summary="Stretches each coordinate of a head by how much the values change along it between two layers.",
    formula="softmax((q * m) k' / sqrt(d)) v, m = mean_t |v - v_previous| / max_d mean_t |v - v_previous|",
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
    detaches=("metric",),
    open_settings={"gradient": "open"},
    logits=True,
    cost="fused",
    pretrained="lossy",
    reported=(
        Reported(
            value=44.86,
            unit="%",
            of="top-1 accuracy under PGD-20, ImageNet-1k validation, DeiT-Tiny trained with the mean, scaling max",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), step 0.15 eps, random start, "
            "no box clipping, the model's own predictions as labels; median instead of mean in the attack; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=43.34,
            unit="%",
            of="top-1 accuracy under PGD-20, ImageNet-1k validation, DeiT-Tiny, scaling mean",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), step 0.15 eps, random start, "
            "no box clipping, the model's own predictions as labels; median instead of mean in the attack; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=54.44,
            unit="%",
            of="top-1 accuracy under FGM, ImageNet-1k validation, DeiT-Tiny, scaling max",
            protocol="nominal eps 1/255 on normalised inputs (about 0.22/255 in pixels), one step, no box clipping, "
            "the model's own predictions as labels; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=59.23,
            unit="%",
            of="top-1 accuracy under SPSA, ImageNet-1k validation, DeiT-Tiny",
            protocol="nominal eps 0.1 on normalised inputs (about 0.022 in pixels on [0, 1]), 40 iterations, 128 "
            "samples, no box clipping, the model's own predictions as labels; one seed (random_metric there: 67.72)",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=27.45,
            unit="%",
            of="top-1 accuracy under AutoAttack standard, ImageNet-1k validation, DeiT-Tiny",
            protocol="nominal eps 1/255 on normalised inputs that the attack clamps to [0, 1], which clips about half "
            "of the pixels: attack and clipping damage mixed; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=54.73,
            unit="perplexity",
            of="WikiText-103 test with swapped words, 16-layer language model of width 128, scaling max",
            protocol="words replaced by AAA in inputs and targets at an unrecorded rate; logits not scaled by "
            "1 / sqrt(d) in this arm only; metric averaged over future tokens; one seed",
            source="log in github.com/stefvk/Elliptical-Attention",
        ),
        Reported(
            value=71.53,
            unit="%",
            of="clean top-1 accuracy, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 72.50)",
            protocol="independent replication with the DeiT recipe",
            source="Govindarajan et al. 2026, arXiv:2604.00199, as quoted in a secondary text",
        ),
        Reported(
            value=46.30,
            unit="%",
            of="top-1 accuracy under PGD, ImageNet-1k validation, ViT-Ti/16 (softmax in the same table: 43.65)",
            protocol="independent replication; magnitudes suggest the same nominal eps 1/255 on normalised inputs",
            source="Govindarajan et al. 2026, arXiv:2604.00199, as quoted in a secondary text",
        ),
    ),
)
