"""Softmax and what leaves its map a softmax: temperature, wider networks, further tokens."""

from explicit.case import SPREAD, Case, Inputs, mixing
from torch import Tensor, nn


def softmax(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return mixing(given.q.shape[-1] ** -0.5 * given.q @ given.k.mT, seen) @ given.v


def matched(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    calibration = Case("softmax_matched", matched).calibration()
    scale = given.q.shape[-1] ** -0.5
    logits = scale * calibration.q @ calibration.k.mT
    own = ((logits - logits.mean(-1, keepdim=True)) ** 2).mean(dim=(0, 2, 3)).sqrt()
    return mixing(scale * (SPREAD / own)[:, None, None] * given.q @ given.k.mT, seen) @ given.v


CASES = [
    Case("softmax", softmax),
    Case("softmax_matched", matched),
    Case("wide_softmax", softmax),
    Case("registers", softmax),
]
