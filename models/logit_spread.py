"""How far the attention logits of a network spread: the temperature that a matched softmax has to meet."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from .network import Network
from .sight import logits_of, sight


def spread(logits: Float[Tensor, "batch head query key"]) -> Float[Tensor, " head"]:
    """Standard deviation over keys, root mean square over queries and samples, for each head.

    Centred by row, because softmax ignores a constant added to a row; so the value is a property of the attention map.
    """
    return logits.double().var(dim=-1, correction=0).mean(dim=(0, 2)).sqrt()


@torch.no_grad()
def logit_spread(
    model: Network, pixels: Tensor, noise: Mapping[str, Tensor] | None = None
) -> Float[Tensor, "layer head"]:
    """Measure the spread at every attention of a model on one batch, in float64.

    `noise` is what a stochastic model draws. Raises TypeError where a core has no logits.
    """
    places = zip(model.attentions(), sight(model, pixels, noise).places, strict=True)
    return torch.stack([spread(logits_of(core, at)) for core, at in places])
