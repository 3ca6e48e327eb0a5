"""A user's own network, whatever its architecture: any module from pixels in [0, 1] to logits."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .network import Network, Tap
from .noise import Noise


class OwnNetwork(Network):
    """Wraps a module whose `forward` takes pixels `[batch, channel, height, width]` and returns `[batch, class]`.

    The module may offer more: a method `noise()` that returns what randomness it needs, which then comes as the
    argument `noise`; an argument `tap`, which it calls with a hook point, a layer and a `[batch, token, dim]` tensor,
    so that its tokens can be measured.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.takes = frozenset(inspect.signature(model.forward).parameters) & {"noise", "tap"}

    @property
    def inner(self) -> nn.Module:
        """The user's module."""
        return self.model

    def noise(self) -> tuple[Noise, ...]:
        """Return what the module declares."""
        declared = getattr(self.model, "noise", None)
        return tuple(declared()) if callable(declared) and "noise" in self.takes else ()

    def forward(
        self,
        pixels: Float[Tensor, "batch channel height width"],
        noise: Mapping[str, Tensor] | None = None,
        tap: Tap | None = None,
        calibrating: bool = False,
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of a batch."""
        offered: dict[str, Any] = {"noise": noise or {}, "tap": tap}
        logits: Tensor = self.model(pixels, **{name: offered[name] for name in sorted(self.takes)})
        return logits


def _held(network: nn.Module) -> dict[str, Tensor]:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


@torch.no_grad()
def fault(network: OwnNetwork, pixels: Tensor, noise: Mapping[str, Tensor]) -> str:
    """Return what keeps a network from being judged on some pixels, and what to do; empty where nothing does."""
    network.eval()
    before = _held(network)
    first, second = network(pixels, noise), network(pixels, noise)
    wanted = (len(pixels), network.classes)
    if not isinstance(first, Tensor) or tuple(first.shape) != wanted:
        got = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        return f"it returned {got} for {list(pixels.shape)}; return logits {list(wanted)}, [batch, class]"
    if not bool(first.isfinite().all()):
        return "its logits are not finite; look at what it does to pixels in [0, 1]"
    if any(not torch.equal(tensor, before[name]) for name, tensor in _held(network).items()):
        return (
            "it changes its own tensors in eval mode, so its answers depend on what it saw before; do not do so there"
        )
    if not torch.equal(first, second):
        return (
            "it answers differently to the same pixels in eval mode; switch its randomness off, or declare it in a "
            "method `noise()` and take it as the argument `noise`"
        )
    return ""
