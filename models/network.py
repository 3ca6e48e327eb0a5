"""What the workbench asks of every network: pixels in [0, 1] to logits, declared noise, places to look, calibration."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from .attention import Calibrates
from .noise import Noise
from .site import Site

Steer = Callable[[int, Tensor], Tensor]
"""Called with a layer and the tokens that its block is given, prefix tokens first; returns those that it gets."""
Tap = Callable[[str, int, Tensor], None]
"""Called with a hook point, a layer and a `[batch, token, dim]` tensor while the network runs."""


class Network(nn.Module):
    """A network that can be trained, attacked and measured; normalisation is inside.

    Hook points of a `Tap`: `read` at layer l is the normalised stream, affine removed, that attention l reads, and at
    layer `depth` the one that the head reads; `stream` is the residual stream before that norm. Tokens that stand for
    no patch are not shown.
    """

    classes: int
    """Number of logits."""
    checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of kept, while training."""
    steer: Steer | None = None
    """What may move tokens between the layers; None for a network that is left alone."""
    divisors: tuple[float, ...]
    """Standard deviation by which each channel of the pixels is divided inside; not there where it is not known."""
    sites: tuple[Site, ...] = ()
    """Where each attention sits, first layer first; none for a network that is not built around them."""

    @property
    def inner(self) -> nn.Module:
        """The module whose tensors a file of weights names."""
        return self

    def origin(self) -> dict[str, Any]:
        """Return how weights and mechanism came into it, where a report has to say it."""
        return {}

    def attentions(self) -> list[nn.Module]:
        """Return the cores, first layer first; none for a network that is not built around them."""
        return []

    def replace_attention(self, layer: int, core: nn.Module) -> None:
        """Put another core into a layer."""
        raise IndexError(f"there is no attention to replace in layer {layer} of {type(self).__name__}")

    def noise(self) -> tuple[Noise, ...]:
        """Return all noise that a pass needs; nothing for a network without randomness."""
        return ()

    @property
    def calibrates(self) -> bool:
        """Whether any core has frozen quantities that are measured on training samples."""
        return any(isinstance(core, Calibrates) for core in self.attentions())

    def forward(
        self,
        pixels: Float[Tensor, "batch channel height width"],
        noise: Mapping[str, Tensor] | None = None,
        tap: Tap | None = None,
        calibrating: bool = False,
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of a batch.

        `noise` holds what `self.noise()` asks for. With `calibrating`, the batch is the calibration sample and every
        part sets its frozen quantities on the way.
        """
        raise NotImplementedError
