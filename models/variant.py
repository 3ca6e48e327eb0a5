"""What an attention variant says about itself: its mathematics, its source, its hazards and its demands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Setting = str | int | float | bool
"""Value of one setting of a variant; its default's type is the type that a user must give."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One number that a variant's paper reports, with the protocol that produced it."""

    value: float
    """The number, in `unit`."""
    unit: str
    """Unit, `%` for accuracies."""
    of: str
    """What was measured, on which data and network."""
    protocol: str
    """How, in the paper's own terms and ours where they differ."""
    source: str
    """Where the number was read."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One attention mechanism with its settings.

    A variant is declared once, as a module-level constant written in literals (`core` may name a class of the same
    file), so that the catalogue can read the declaration without running the file.
    """

    name: str
    """Lower snake case, equal to the file's name for built-in variants."""
    core: Callable[..., Any]
    """Called as `core(site, **settings)`, and with one keyword for each name in `measured`; returns a module. Where
    `builds` is `network`, called as `core(**settings)`."""
    source: str
    """Paper and equation."""
    version: int
    """Raised whenever a change moves a number."""
    summary: str
    """One sentence: what it changes in attention."""
    formula: str
    """The output of one head in plain text, our letters."""
    family: str
    """Near-duplicates share a family and count once in statistics across variants."""
    attention_map: Literal["row_stochastic", "nonnegative", "signed", "implicit"]
    """Kind of matrix that multiplies the values."""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting with its default."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Allowed values of the settings that have a closed list."""
    causal: Literal["yes", "no", "prefix"] = "yes"
    """Usable under a causal mask: as it is, not at all, or through a prefix form that differs from the paper's."""
    noise: tuple[str, ...] = ()
    """Names of the noise that the core may draw, depending on its settings."""
    batch_coupled: bool = False
    """Whether one sample's output depends on the others of its batch, with the default settings."""
    coupling_settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Settings under which the samples of a batch mix, where the defaults keep them apart."""
    equivariant: bool = True
    """Whether permuting the tokens permutes the outputs: without a causal mask nothing looks at a token's place."""
    layer_state: tuple[str, ...] = ()
    """What it reads from other layers: `first`, `previous`."""
    minimum_tokens: int = 1
    """Below this number of tokens the variant makes no sense and is not applicable."""
    heads_multiple_of: int = 1
    """The variant is not applicable where the number of heads is not a multiple of this."""
    needs_grid: bool = False
    """Whether it is not applicable where the tokens have no grid of patches."""
    extra_tokens: str = ""
    """Setting that says how many learned tokens the backbone puts in front of the patches; empty for none."""
    norm: Literal["layer_norm", "center_norm"] = "layer_norm"
    """Norm that the backbone puts in front of attention and MLP."""
    parameters_of: str = ""
    """Setting that names the variant to whose number of parameters the backbone's MLPs are widened; empty for none."""
    logits: bool = False
    """Whether it is softmax(logits) v and its core shows the logits, so that its temperature can be measured."""
    cost: Literal["fused", "matrix", "linear"] = "matrix"
    """How it computes: in fused calls (memory linear in the tokens), with matrices of tokens x tokens, or in time and
    memory linear in the tokens."""
    caveats: tuple[str, ...] = ()
    """What to know before believing its numbers, one sentence each."""
    detaches: tuple[str, ...] = ()
    """Quantities through which no gradient flows with the default settings."""
    open_settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Settings that open every gradient path without changing the output, for attacks that must not be blinded."""
    extra_parameters: str = "none"
    """Parameters beyond those of softmax attention, in words."""
    pretrained: Literal["lossless", "lossy", "impossible"] = "lossy"
    """How it enters weights trained with softmax: same function, another function, or not at all."""
    calibrates: bool = False
    """Whether the core has a `calibrate` method, run on training samples after every epoch and frozen afterwards."""
    measured: tuple[str, ...] = ()
    """Quantities measured on a trained donor (the setting `donor`) that the core is built with: `logit_spread`."""
    control_for: tuple[str, ...] = ()
    """Variants whose claim this one is a control for."""
    reported: tuple[Reported, ...] = ()
    """Numbers of the paper, each with its protocol."""
    builds: Literal["core", "network"] = "core"
    """What `core` returns: one layer's attention, or a whole network from pixels to logits that is used as it is."""


def why_unfit(variant: Variant, *, tokens: int, heads: int, grid: bool) -> str:
    """Return why a variant makes no sense in a network of some sizes, an empty string where it does."""
    if tokens < variant.minimum_tokens:
        return f"needs {variant.minimum_tokens} tokens, there are {tokens}"
    if heads % variant.heads_multiple_of:
        return f"needs a multiple of {variant.heads_multiple_of} heads, there are {heads}"
    return "needs a grid of patches, there is none" if variant.needs_grid and not grid else ""


def swap_fault(variant: Variant) -> str:
    """Return why a variant cannot enter a timm model, an empty string where it may.

    A timm model has its projections, tokens and norms already, and whoever changes them keeps none of its weights.
    """
    if variant.builds != "core":
        return "it is a whole network of its own; use it as a model"
    if variant.extra_tokens:
        return f"it asks for tokens of its own ({variant.extra_tokens}); use a timm model with registers (reg4) instead"
    if variant.norm != "layer_norm":
        return f"it asks for the norm {variant.norm}; use it in the backbone vit"
    if variant.parameters_of:
        return "it asks for MLPs of another width; set the option mlp_ratio with the variant softmax instead"
    if variant.pretrained == "impossible":
        return "it has other projections than softmax attention; use it in the backbone vit"
    return ""
