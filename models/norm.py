"""The norms in front of attention and MLP, and what they leave of the stream without their learned part."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NormName = Literal["layer_norm", "center_norm"]
"""A norm that a variant may ask its backbone for."""


class CenterNorm(nn.Module):
    """D / (D - 1) (x - mean x) with a learned gain and bias, arXiv:2304.09856; it centres and does not divide.

    >>> CenterNorm(2)(torch.tensor([1.0, 4.0])).tolist()
    [-3.0, 3.0]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "*leading dim"]) -> Float[Tensor, "*leading dim"]:
        """Return the centred tokens."""
        return centred(x) * self.weight + self.bias


def centred(x: Float[Tensor, "*leading dim"]) -> Float[Tensor, "*leading dim"]:
    """D / (D - 1) (x - mean x)."""
    dim = x.shape[-1]
    return dim / (dim - 1) * (x - x.mean(-1, keepdim=True))


Norm = CenterNorm | nn.LayerNorm


def norm(name: NormName, dim: int) -> Norm:
    """Build a norm."""
    return CenterNorm(dim) if name == "center_norm" else nn.LayerNorm(dim)


def without_affine(module: Norm, x: Float[Tensor, "*leading dim"]) -> Float[Tensor, "*leading dim"]:
    """Return what a norm makes of the stream before its learned gain and bias."""
    if isinstance(module, CenterNorm):
        return centred(x)
    return F.layer_norm(x, (x.shape[-1],), eps=module.eps)
