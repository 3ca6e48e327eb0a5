"""What the workbench asks of every network: pixels in [0, 1] to logits, declared noise, places to look, calibration."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from .noise import Noise

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

    def noise(self) -> tuple[Noise, ...]:
        """Return all noise that a pass needs; nothing for a network without randomness."""
        return ()

    @property
    def calibrates(self) -> bool:
        """Whether any part has frozen quantities that are measured on training samples."""
        return False

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
