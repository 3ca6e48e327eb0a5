"""No shift: the input as it is, which every shift is compared with."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .draw import Draw
from .samples import Samples, Target
from .shift import Shift


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
