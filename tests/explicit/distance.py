"""Kernels of distances and of directions: the logits are formed pair by pair."""

from explicit.case import Case, Inputs, mixing
from torch import Tensor, nn


def l2(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    difference = given.q[:, :, :, None] - given.k[:, :, None]
    return mixing(-(difference**2).sum(-1) / given.q.shape[-1] ** 0.5, seen) @ given.v


def quest(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return mixing(given.q @ (given.k / (given.k**2).sum(-1, keepdim=True).sqrt()).mT, seen) @ given.v


CASES = [Case("l2", l2), Case("quest", quest)]
