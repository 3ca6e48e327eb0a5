"""Sinkhorn's algorithm as it is taught: the matrix of exponentials, its rows and columns divided in turn."""

import torch
from explicit.case import Case, Inputs, Reference
from torch import Tensor, nn


def sinkhorn(iterations: int, stop: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        kernel = (given.q.shape[-1] ** -0.5 * given.q @ given.k.mT).exp()
        real = torch.ones(len(given.q), given.q.shape[2]).bool() if given.mask is None else given.mask
        outputs = torch.zeros_like(given.v)
        for b in range(len(given.q)):
            for h in range(given.q.shape[1]):
                inside = kernel[b, h][real[b]][:, real[b]]
                factor = torch.ones(len(inside)).double()
                for _ in range(iterations // 2):
                    balanced = inside * factor
                    balanced = balanced / balanced.sum(1, keepdim=True)
                    factor = factor / balanced.sum(0)
                if stop:
                    factor = factor.detach()
                weights = kernel[b, h][:, real[b]] * factor
                outputs[b, h] = weights / weights.sum(1, keepdim=True) @ given.v[b, h][real[b]]
        return outputs

    return reference


CASES = [
    Case("sinkformer", sinkhorn(3, True), causal=False),
    Case("sinkformer", sinkhorn(3, False), {"gradient": "open"}, causal=False),
    Case("sinkformer", sinkhorn(7, True), {"iterations": 7}, causal=False),
]
