"""Linear mixtures of what the heads of one layer have: heads that talk to each other."""

import torch
from jaxtyping import Float
from torch import Tensor


def mixed_heads(
    x: Float[Tensor, "batch head query key"], weight: Float[Tensor, "head other"]
) -> Float[Tensor, "batch other query key"]:
    """Sum over heads h of weight_hg x_h, for each g.

    >>> x, weight = torch.tensor([[[[1.0]], [[10.0]]]]), torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    >>> mixed_heads(x, weight).flatten().tolist()
    [21.0, 30.0]
    """
    return torch.einsum("bhts,hg->bgts", x, weight.to(x.dtype))
