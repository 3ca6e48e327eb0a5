"""The tensors of noise that a network asked for, drawn by sample and pass."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..attacks.draw import Draw
from ..models.noise import Noise


def drawn(
    noises: Iterable[Noise],
    ids: Sequence[str],
    draw: Draw,
    device: torch.device | str = "cpu",
    *,
    training: bool = False,
) -> dict[str, Tensor]:
    """Return each declared tensor, one leading axis of samples; `train` noise only while training."""
    return {
        noise.name: draw.named(noise.name).of(noise.distribution, ids, noise.shape, device)
        for noise in noises
        if training or noise.when == "always"
    }
