"""A dataset with its splits, its label space and what counts as correct."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset. Declared once, in literals, as a module-level constant (see `Variant`)."""

    name: str
    """Lower snake case, equal to the file's name for built-in tasks."""
    load: Callable[..., Any]
    """Called as `load(fold, folder)`; reads one fold as a `Split` and checks its digest."""
    version: int
    """Raised whenever a change moves a number."""
    digest: str
    """sha256 of the images and labels, which the loader checks."""
    folds: int
    """Number of folds."""
    classes: tuple[str, ...]
    """Names of the classes, in label order."""
    source: str
    """Where the data comes from and under which licence."""
    summary: str
    """What it is and how it is split."""
    correct: str
    """What counts as correct."""
    chance: float
    """Accuracy of a constant guess, from 0 to 1."""
    pixels: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    """What the backbone must know: `image`, `channels`, `mean`, `std`."""
    needs_folder: bool = False
    """Whether a data folder has to be given."""
