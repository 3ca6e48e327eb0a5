"""Kernels that are products over coordinates, and attention whose values are normalised too."""

from math import sqrt

import torch
from explicit.case import Case, Inputs, Reference, mixing
from torch import Tensor, nn


def fourierformer(normaliser: float) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        """The product itself, coordinate by coordinate."""
        x = core.get_parameter("radius") * (given.q[:, :, :, None] - given.k[:, :, None])
        kernel = torch.ones(1).double()
        for sinc in (x.sin() / x).unbind(-1):
            kernel = kernel * (sinc**2 + 1e-14) ** 2
        kernel = kernel * seen[:, None]
        return kernel / (kernel.sum(-1, keepdim=True) + normaliser) @ given.v

    return reference


def unit(x: Tensor) -> Tensor:
    return x / ((x**2).sum(-1, keepdim=True) + 1e-6).sqrt()


def lipsformer(form: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        a = mixing(10 * (unit(given.q)[:, :, :, None] * unit(given.k)[:, :, None]).sum(-1), seen)
        return a @ (core.get_parameter("nu") * unit(given.v)) if form == "paper" else a @ given.v

    return reference


CASES = [
    Case("fourierformer", fourierformer(0)),
    Case("fourierformer", fourierformer(1e-6), {"form": "released", "radius": 2.0}),
    Case("fourierformer", fourierformer(0), {"radius": sqrt(0.5)}, head_dim=17),
    Case("lipsformer", lipsformer("paper")),
    Case("lipsformer", lipsformer("released"), {"form": "released"}),
]
