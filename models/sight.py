"""What each attention of a network reads, and the logits it makes of it, while the network looks at a batch."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from .attention import Context, HasLogits
from .network import Network


class Seen(NamedTuple):
    """What one attention reads while its network looks at a batch."""

    q: Tensor
    k: Tensor
    v: Tensor
    ctx: Context


class Sight(NamedTuple):
    """One pass of a network."""

    logits: Float[Tensor, "batch class"]
    """Its answer."""
    places: list[Seen]
    """What each attention read, first layer first."""


def sight(network: Network, pixels: Tensor, noise: Mapping[str, Tensor] | None = None) -> Sight:
    """Pass a batch through a network and see what each attention reads; `noise` is what a stochastic network draws.

    Differentiable in the pixels where gradients are on.
    """
    found: list[Seen] = []
    handles = [
        core.register_forward_pre_hook(lambda module, arguments: found.append(Seen(*arguments)))
        for core in network.attentions()
    ]
    try:
        logits = network(pixels, noise)
    finally:
        for handle in handles:
            handle.remove()
    return Sight(logits, found)


def logits_of(core: nn.Module, at: Seen) -> Float[Tensor, "batch head query key"]:
    """Return a core's logits; raises TypeError where it has none (its map is no softmax of anything), naming it."""
    if not isinstance(core, HasLogits):
        name = type(core).__name__
        raise TypeError(f"{name} has no logits to match; choose a donor of the form softmax(logits) v")
    return core.logits(*at)
