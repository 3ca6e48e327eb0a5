"""One way in which inputs change: what it is called, how hard it can hit, and the function that applies it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from .draw import Draw
from .samples import Samples, Target

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Shift:
    """One way in which inputs change. Declared once, in literals, as a module-level constant (see `Variant`)."""

    name: str
    """Lower snake case, equal to the file's name for built-in shifts."""
    apply: Callable[..., tuple[Tensor, ...]]
    """Called as `apply(samples, severities, draw, target, **settings)`; returns one batch of pixels for each severity."""
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
    norm: Literal["linf", "l2", "none"] = "none"
    """Ball that the perturbation must stay in; a setting called `norm` overrides it."""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting with its default."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Allowed values of the settings that have a closed list."""
    chunk_coupled: bool = False
    """Whether samples of one call influence each other's randomness (foreign code); the runner then fixes the chunks."""
    warning: str = ""
    """A known defect, shown beside every number it produced."""


def severity_value(text: str) -> float:
    """Read a severity as a number.

    >>> severity_value("8/255") == 8 / 255
    True
    """
    return float(Fraction(text))


def unchanged(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None, **settings: Any
) -> tuple[Tensor, ...]:
    """Return the pixels as they are, once for each severity."""
    return tuple(samples.pixels for _ in severities)


CLEAN = Shift(
    name="clean",
    apply=unchanged,
    family="clean",
    source="none needed",
    version=1,
    summary="The input as it is: what every shift is compared with.",
    severities=("0",),
    unit="none",
)
