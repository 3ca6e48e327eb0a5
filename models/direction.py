"""The direction of a vector: what is left of it when its length is taken away."""

import torch
from jaxtyping import Float
from torch import Tensor


def direction(x: Float[Tensor, "*leading dim"]) -> Float[Tensor, "*leading dim"]:
    """Return the vectors at length 1; a vector of length 0 has no direction and stays 0.

    >>> direction(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length == 0, 1, length)
