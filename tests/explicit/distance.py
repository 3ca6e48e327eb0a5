"""Kernels of distances and of directions: the logits are formed pair by pair."""

import torch
from explicit.case import Case, Inputs, mixing
from torch import Tensor, nn

from attnbench.models.attention import Attention


def l2(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    difference = given.q[:, :, :, None] - given.k[:, :, None]
    return mixing(-(difference**2).sum(-1) / given.q.shape[-1] ** 0.5, seen) @ given.v


def quest(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return mixing(given.q @ (given.k / (given.k**2).sum(-1, keepdim=True).sqrt()).mT, seen) @ given.v


def l2_tied(given: Inputs, seen: Tensor, host: Attention) -> Tensor:
    """Head by head: P X A W_V with A = W_Q W_Q' / sqrt(d), W as the paper writes them (dim x head_dim)."""
    heads, head_dim = host.site.heads, host.site.head_dim
    x, outputs = given.x, []
    for h in range(heads):
        rows = slice(h * head_dim, (h + 1) * head_dim)
        w_q, w_v = host.q.weight[rows].T, host.v.weight[rows].T
        projected = x @ w_q
        distance = ((projected[:, :, None] - projected[:, None]) ** 2).sum(-1)
        p = mixing(-distance[:, None] / head_dim**0.5, seen)[:, 0]
        a = w_q @ w_q.T / head_dim**0.5
        constant = host.q.bias[rows] @ w_q.T @ w_v / head_dim**0.5 + host.v.bias[rows]
        outputs.append(p @ x @ a @ w_v + constant)
    return torch.cat(outputs, -1) @ host.out.weight.T + host.out.bias


CASES = [Case("l2", l2), Case("quest", quest), Case("l2_tied", l2, whole=l2_tied)]
