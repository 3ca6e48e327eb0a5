"""Softmax whose denominator holds more than the keys."""

import torch
from explicit.case import Case, Inputs, mixing
from torch import Tensor, nn


def with_sink(given: Inputs, seen: Tensor, sink: Tensor) -> Tensor:
    """Softmax over the keys and one more logit a head, whose share is thrown away."""
    logits = given.q.shape[-1] ** -0.5 * given.q @ given.k.mT
    column = sink.view(1, -1, 1, 1).expand(*logits.shape[:-1], 1)
    always = torch.ones_like(seen[..., :1])
    return mixing(torch.cat((logits, column), -1), torch.cat((seen, always), -1))[..., :-1] @ given.v


def softmax_plus_one(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    weights = (given.q.shape[-1] ** -0.5 * given.q @ given.k.mT).exp() * seen[:, None]
    return weights / (1 + weights.sum(-1, keepdim=True)) @ given.v


def learned_sink(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return with_sink(given, seen, core.get_parameter("sink"))


CASES = [Case("softmax_plus_one", softmax_plus_one), Case("learned_sink", learned_sink)]
