"""How far the attention logits of a network spread: the temperature that a matched softmax has to meet."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import Context, HasLogits
from .network import Network


def spread(logits: Float[Tensor, "batch head query key"]) -> Float[Tensor, " head"]:
    """Standard deviation over keys, root mean square over queries and samples, for each head.

    Centred by row, because softmax ignores a constant added to a row; so the value is a property of the attention map.
    """
    return logits.double().var(dim=-1, correction=0).mean(dim=(0, 2)).sqrt()


class Seen(NamedTuple):
    """What one attention reads while its network looks at a batch."""

    q: Tensor
    k: Tensor
    v: Tensor
    ctx: Context


@torch.no_grad()
def seen(network: Network, pixels: Tensor, noise: Mapping[str, Tensor] | None = None) -> list[Seen]:
    """Return what each attention of a network reads on one batch; `noise` is what a stochastic network draws."""
    found: list[Seen] = []
    handles = [
        core.register_forward_pre_hook(lambda module, arguments: found.append(Seen(*arguments)))
        for core in network.attentions()
    ]
    try:
        network(pixels, noise)
    finally:
        for handle in handles:
            handle.remove()
    return found


def logits_of(core: nn.Module, at: Seen) -> Float[Tensor, "batch head query key"]:
    """Return a core's logits; raises TypeError where it has none (its map is no softmax of anything), naming it."""
    if not isinstance(core, HasLogits):
        name = type(core).__name__
        raise TypeError(f"{name} has no logits to match; choose a donor of the form softmax(logits) v")
    return core.logits(*at)


@torch.no_grad()
def logit_spread(
    model: Network, pixels: Tensor, noise: Mapping[str, Tensor] | None = None
) -> Float[Tensor, "layer head"]:
    """Measure the spread at every attention of a model on one batch, in float64.

    `noise` is what a stochastic model draws. Raises TypeError where a core has no logits.
    """
    places = zip(model.attentions(), seen(model, pixels, noise), strict=True)
    return torch.stack([spread(logits_of(core, at)) for core, at in places])
