"""One way in which inputs change: what it is called, how hard it can hit, and the function that applies it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Shift:
    """One way in which inputs change. Declared once, in literals, as a module-level constant (see `Variant`)."""

    name: str
    """Lower snake case, equal to the file's name for built-in shifts."""
    apply: Callable[..., Any]
    """Called as `apply(samples, severities, draw, target, **settings)`; returns a tuple of pixels, one a severity."""
    family: Literal["clean", "adversarial", "corruption", "contamination", "natural"]
    """Which kind of change it is."""
    source: str
    """Where it is defined."""
    version: int
    """Raised whenever a change moves a number."""
    summary: str
    """One sentence: what happens to the input."""
    severities: tuple[str, ...]
    """Those of a plain run, in rising order: fractions such as `8/255`, rates or levels."""
    unit: str
    """Unit of the severity: `eps (L-inf, pixels)`, `level`, `share of patches`."""
    ladder: bool = False
    """Whether one cell climbs all its severities (a security curve) instead of one cell a severity."""
    stage: Literal["train", "test"] = "test"
    """When the input changes."""
    modality: str = "image"
    """What it applies to."""
    needs_target: bool = False
    """Whether it looks at the model."""
    norm: Literal["linf", "l2", "patches", "tokens", "none"] = "none"
    """Ball that the perturbation must stay in, measured anew afterwards; a setting called `norm` overrides it.
    `patches` counts the patches that changed, `tokens` is measured in the stream between two layers."""
    knowledge: Literal["none", "white_box", "black_box", "transfer"] = "none"
    """What it knows of the model: nothing, its gradients, its logits, or other models."""
    requires: Literal["", "attention_logits", "tokens", "normalisation"] = ""
    """What a model must show beside its answers: where it does not, the shift is not applicable."""
    requires_where: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What it must show with one value of a setting only, by `setting=value`."""
    single_step: bool = False
    """Whether it takes one gradient step: an iterative attack of the same ball ought to find more."""
    minimum_norm: bool = False
    """Whether it looks for the smallest perturbation, and the severities only say how large it may be."""
    convention: str = ""
    """Whose published way of measuring it reproduces where that is not ours; its numbers are marked as non-standard."""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting with its default."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Allowed values of the settings that have a closed list."""
    chunk_coupled: bool = False
    """Whether samples of one call share their randomness (foreign code); the runner then passes all in one call."""
    warning: str = ""
    """A known defect, shown beside every number it produced."""


def severity_value(text: str) -> float:
    """Read a severity as a number. Raises ValueError where it is none.

    >>> severity_value("8/255") == 8 / 255
    True
    """
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError):
        raise ValueError(f"a severity is a number or a fraction such as '0.1' or '8/255', got {text!r}") from None
