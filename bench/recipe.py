"""How a network is trained: the same for every variant, and versioned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train. Declared once, in literals, as a module-level constant (see `Variant`)."""

    name: str
    """Lower snake case, equal to the file's name for built-in recipes."""
    fit: Callable[..., Mapping[str, float]]
    """Called as `fit(model, train, seed, **settings)`; trains in place and returns facts (final loss, epochs)."""
    version: int
    """Raised whenever a change moves a number."""
    source: str
    """Where it comes from."""
    summary: str
    """One sentence: what it does and how long it takes."""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting with its default."""
