"""A sum whose bits depend on the numbers alone, never on what else is in the batch."""

from torch import Tensor


def ordered_sum(values: Tensor) -> Tensor:
    """Return the sum over the last axis, in float64.

    Halves are added elementwise until one number is left, so the length alone fixes the order of the additions; a
    library's sum may choose another order for another batch.

    >>> import torch
    >>> ordered_sum(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])).tolist()
    [7.0, 56.0]
    """
    rest = values.double()
    while rest.shape[-1] > 1:
        half = rest.shape[-1] // 2
        odd = rest[..., 2 * half :]
        rest = rest[..., :half] + rest[..., half : 2 * half]
        if odd.shape[-1]:
            rest[..., :1] += odd
    return rest[..., 0]
