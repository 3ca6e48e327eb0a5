"""One measured number of one cell."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Record:
    """One measured number, with what is needed to read it and to doubt it."""

    metric: str
    """Name of the metric."""
    value: float | None
    """The number, or None with a reason."""
    unit: str
    """Its unit."""
    better: Literal["higher", "lower", "neither"]
    """Which direction is wished for."""
    n: int
    """Number of inputs behind it."""
    severity: str = ""
    """Severity within the cell: a rung of a ladder, a level, a rate."""
    point: str = ""
    """Hook point, for metrics of hidden states."""
    layer: int | None = None
    """Layer, for metrics of hidden states."""
    deviation: float | None = None
    """Standard deviation over the n inputs (n - 1 in the denominator); None where there is one number only."""
    status: Literal["ok", "null", "invalid"] = "ok"
    """`null`: could not be measured; `invalid`: measured, but a law was broken."""
    reason: str = ""
    """Why it is not `ok`."""
