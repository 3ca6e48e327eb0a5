"""One number measured on a model's outputs, hidden states or the model itself, and what it means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. Declared once, in literals, as a module-level constant (see `Variant`)."""

    name: str
    """Lower snake case, equal to the file's name for built-in metrics, or its own where a file holds several."""
    measure: Callable[..., Any]
    """`outputs`: measure(observation) -> one value an input. `tokens`: measure(tokens, mask) -> one value an input,
    called at each layer; NaN where the value is undefined. `model`: measure(model, pixels) -> one number, where the
    model's `forward` takes pixels alone, with any number of rows, and finds its noise itself."""
    needs: Literal["outputs", "tokens", "model"]
    """What it is measured on."""
    version: int
    """Raised whenever a change moves a number."""
    axis: str
    """What becomes equal, or is counted: `token`, `sample`, `output`, `model`."""
    unit: str
    """Unit of the value."""
    better: Literal["higher", "lower", "neither"]
    """Which direction is wished for; `neither` where a direction is a hypothesis."""
    lowest: float
    """Lower end of the range."""
    highest: float | None
    """Upper end of the range; None where there is none."""
    null: str
    """What structureless input reads, in words or as a formula."""
    definition: str
    """The formula in plain text."""
    source: str
    """Where it is defined."""
    hook_point: str = ""
    """Where tokens are taken; empty for other needs."""
    subsample: int = 0
    """Number of inputs it is measured on, the same ones always; 0 for all."""
    volatile: bool = False
    """Whether it is a time or a memory reading, which no two runs repeat."""
    kept_by_sample: bool = True
    """Whether each input's value is stored beside the mean."""
