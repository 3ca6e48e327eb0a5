"""How far the attention logits of a network spread: the temperature that a matched softmax has to meet."""

from collections.abc import Mapping

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


@torch.no_grad()
def logit_spread(
    model: Network, pixels: Tensor, noise: Mapping[str, Tensor] | None = None
) -> Float[Tensor, "layer head"]:
    """Measure the spread at every attention of a model on one batch, in float64.

    `noise` is what a stochastic model draws. Raises TypeError where a core has no logits (its map is no softmax of
    anything), naming it.
    """
    rows: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Tensor, Tensor, Tensor, Context]) -> None:
        if not isinstance(module, HasLogits):
            name = type(module).__name__
            raise TypeError(f"{name} has no logits to match; choose a donor of the form softmax(logits) v")
        rows.append(spread(module.logits(*arguments)))

    handles = [core.register_forward_pre_hook(record) for core in model.attentions()]
    try:
        model(pixels, noise)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)
