"""Mixtures of Gaussians as keys: the kernels of the components are added one by one."""

import torch
from explicit.case import Case, Inputs, Reference
from torch import Tensor, nn


def components(given: Inputs, core: nn.Module, keys: str) -> list[Tensor]:
    """The two keys of each token, `[batch, head, token, dim]`."""
    if keys == "shifted":
        return [given.k - core.get_parameter("shifts.weight")[r] for r in range(2)]
    weight, bias = core.get_parameter("second.weight"), core.get_parameter("second.bias")
    heads, head_dim = given.k.shape[1], given.k.shape[3]
    second = [
        given.x @ weight[h * head_dim : (h + 1) * head_dim].T + bias[h * head_dim : (h + 1) * head_dim]
        for h in range(heads)
    ]
    return [given.k, torch.stack(second, 1)]


def mgk(keys: str, widths: str) -> Reference:
    narrow = {"equal": (0.5, 0.5), "unequal": (0.5, 1.5)}[widths]

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        first = 1 / (1 + (-core.get_parameter("log_odds")).exp())
        kernel = torch.zeros(1).double()
        for r, (k, prior) in enumerate(zip(components(given, core, keys), (first, 1 - first), strict=True)):
            distance = ((given.q[:, :, :, None] - k[:, :, None]) ** 2).sum(-1)
            kernel = kernel + prior[:, None, None] * (-narrow[r] * distance / given.q.shape[-1] ** 0.5).exp()
        kernel = kernel * seen[:, None]
        return kernel / kernel.sum(-1, keepdim=True) @ given.v

    return reference


CASES = [
    Case("mgk", mgk(keys, widths), {"keys": keys, "widths": widths})
    for keys in ("shifted", "separate")
    for widths in ("equal", "unequal")
]
