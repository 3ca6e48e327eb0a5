"""How many entries of a spectrum are in use: Hill numbers, which count shares instead of comparing with a threshold."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def hill_number(weights: Float[Tensor, "*batch weight"], order: float) -> Float[Tensor, "*batch"]:
    """Return D_q = (sum p^q)^(1 / (1 - q)) over the shares p = weights / sum(weights), along the last axis.

    k equal weights give k whatever the order; D falls as the order rises, from the number of nonzero weights (q = 0)
    over exp(entropy) (q = 1) and 1 / sum p^2 (q = 2) to 1 / max p (q = inf). No constant is added: 0 log 0 = 0, and
    negative rounding of an eigensolver counts as 0. NaN where no weight is positive.

    Source: Hill 1973, Ecology 54(2), equation 4.

    >>> hill_number(torch.tensor([2.0, 1.0, 1.0, 0.0]), 2.0).item()  # shares 1/2, 1/4, 1/4: 1 / (1/4 + 1/16 + 1/16)
    2.6666667461395264
    """
    positive = weights.clamp(min=0)
    shares = positive / positive.sum(-1, keepdim=True)
    if order == 1:
        return torch.exp(torch.special.entr(shares).sum(-1))
    if math.isinf(order):
        return 1 / shares.amax(-1)
    number: Tensor = shares.pow(order).where(shares != 0, 0.0).sum(-1) ** (1 / (1 - order))
    return number
