"""What multiplies or replaces softmax attention from beside: gates, mixed values, differences, sigmoids."""

import math

import torch
from explicit.case import TOKENS, Case, Inputs, Reference, mixing
from explicit.softmax_family import softmax
from torch import Tensor, nn


def gated(elementwise: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        y, weight = softmax(given, seen, core), core.get_parameter("gate.weight")
        _, heads, tokens, head_dim = y.shape
        rows = []
        for h in range(heads):
            own = weight[h * head_dim : (h + 1) * head_dim] if elementwise else weight[h : h + 1]
            rows.append(torch.stack([y[:, h, t] / (1 + (-given.x[:, t] @ own.mT).exp()) for t in range(tokens)], 1))
        return torch.stack(rows, 1)

    return reference


def value_residual(learned: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        a, b = core.get_parameter("weight") if learned else torch.tensor([0.5, 0.5]).double()
        map_ = mixing(given.q.shape[-1] ** -0.5 * given.q @ given.k.mT, seen)
        return a * map_ @ given.first + b * map_ @ given.v

    return reference


def differential(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    """Layer 1 of the harness is the paper's second."""
    q1, k1, q2, k2, gain = (core.get_parameter(n) for n in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "gain"))
    start = 0.8 - 0.6 * math.exp(-0.3 * (2 - 1))
    weight = (q1 @ k1).exp() - (q2 @ k2).exp() + start
    head_dim = given.q.shape[-1]
    maps = mixing(head_dim**-0.5 * given.q @ given.k.mT, seen)
    outputs: list[Tensor] = []
    for h in range(0, given.q.shape[1], 2):
        difference = maps[:, h] - weight * maps[:, h + 1]
        y = difference @ torch.cat((given.v[:, h], given.v[:, h + 1]), -1)
        y = gain * y / ((y**2).mean(-1, keepdim=True) + 1e-5).sqrt() * (1 - start)
        outputs += [y[..., :head_dim], y[..., head_dim:]]
    return torch.stack(outputs, 1)


def sigmoid(visible: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        logits = given.q.shape[-1] ** -0.5 * given.q @ given.k.mT
        counts = seen.sum(-1)[:, None, :, None].double() if visible else torch.tensor(float(TOKENS))
        odds = logits.exp() / counts
        return (odds / (1 + odds) * seen[:, None]) @ given.v

    return reference


CASES = [
    Case("gated", gated(True)),
    Case("gated", gated(False), {"form": "headwise"}),
    Case("value_residual", value_residual(False)),
    Case("value_residual", value_residual(True), {"mix": "learned"}),
    Case("differential", differential, heads=4),
    Case("sigmoid", sigmoid(False)),
    Case("sigmoid", sigmoid(True), {"bias": "visible"}),
]
