"""Elliptical attention in explicit matrices, as its authors released it: what our fused form is timed against."""

import torch
from jaxtyping import Float
from torch import Tensor


def explicit_elliptical(
    q: Float[Tensor, "batch head token dim"],
    k: Float[Tensor, "batch head token dim"],
    v: Float[Tensor, "batch head token dim"],
    previous: Float[Tensor, "batch head token dim"],
    scale: float,
) -> Float[Tensor, "batch head token dim"]:
    """softmax(scale q M k') v with M = diag(mean |v - previous| / its largest coordinate), nothing fused.

    M is a head_dim x head_dim matrix for each sample and head, computed without gradient, and the attention map an
    N x N one, as in `ImageAttack/models.py` of github.com/stefvk/Elliptical-Attention. Its division of the change by a
    constant, which cancels, and its dropouts are left out. A head whose values do not change gives NaN, as there.
    """
    with torch.no_grad():
        change = (v - previous).abs().mean(-2)
        metric = torch.diag_embed(change / change.amax(-1, keepdim=True))
    logits = scale * (q @ metric @ k.transpose(-2, -1))
    return logits.softmax(-1) @ v
