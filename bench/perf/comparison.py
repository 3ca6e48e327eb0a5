"""One finding of `attnbench perf`: by what factor something costs more than its reference."""

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["forward", "forward and backward", "live memory", "attack", "ladder", "saved memory"]
Status = Literal["measured", "not applicable", "failed"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a subject costs, over what its reference costs in the same run."""

    subject: str
    """Label of the variant, or name of the attack."""
    reference: str
    """What it is compared with."""
    quantity: Quantity
    """What was measured; times are the processor's, memory is a count of bytes."""
    tokens: int
    """Number of tokens, those that the variant brings itself not counted."""
    status: Status = "measured"
    """Whether there is a number."""
    reason: str = ""
    """Why there is none."""
    ratio: float | None = None
    """Cost of the subject over cost of the reference."""
    low: float | None = None
    """Lower end of the 95 % interval of the ratio; the ratio itself where it is a count, None after a single round."""
    high: float | None = None
    """Upper end."""
    rounds: int | None = None
    """Rounds of a measurement of time."""
    subject_cost: float | None = None
    """Median seconds of one call, or bytes."""
    reference_cost: float | None = None
    """The same of the reference."""
    severity: str = ""
    """Of an attack; commas between the rungs of a ladder."""
    work: float | None = None
    """Evaluations that an attack needs over those of one that drops no sample and looks at what its last step found."""
    standing: tuple[float, ...] | None = None
    """Share of the samples that withstand an attack, one a rung."""
