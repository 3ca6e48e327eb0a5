"""The product over coordinates of sinc^4, in logarithms: the kernel of generalised Fourier integral attention."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NEAR = 0.03
"""Below this the series is more exact than the quotient, which cancels."""
FLOOR = 1e-7
"""Least |sinc| that counts, its rounding error in float32."""
CHUNK = 8
"""Coordinates that are in memory at a time."""


def log_sinc4(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 2 log(sinc(x)^2 + 1e-14) with sinc(x) = sin(x) / x: zero at 0, finite and smooth at the zeros of sinc.

    >>> round(log_sinc4(torch.tensor(torch.pi / 2)).exp().item(), 4)  # (2 / pi)^4
    0.1643
    """
    near = x.abs() < NEAR
    # The argument is replaced before dividing: a NaN that `where` hides in the output still spoils the gradient.
    far = torch.where(near, 1, x)
    quotient = ((far.sin() / far).square() + FLOOR**2).log()
    square = torch.where(near, x, 0).square()
    series = -square / 3 * (1 + square / 30 * (1 + square * 2 / 31.5))
    return 2 * torch.where(near, series, quotient)


def _coordinates(q: Tensor, k: Tensor, radius: Tensor) -> Tensor:
    return log_sinc4(radius * (q[..., :, None, :] - k[..., None, :, :])).sum(-1)


def log_sinc4_kernel(
    q: Float[Tensor, "batch head query dim"], k: Float[Tensor, "batch head key dim"], radius: Float[Tensor, ""]
) -> Float[Tensor, "batch head query key"]:
    """Return sum_d log sinc(radius (q_d - k_d))^4 for all pairs, in float32 or wider whatever the inputs.

    Memory is that of one matrix of pairs and a few coordinates, in the backward pass too, which computes them again.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k, radius = q.to(wide), k.to(wide), radius.to(wide)
        total = q.new_zeros(*q.shape[:-1], k.shape[-2])
        for start in range(0, q.shape[-1], CHUNK):
            part = slice(start, start + CHUNK)
            total = total + checkpoint(
                _coordinates, q[..., part], k[..., part], radius, use_reentrant=False, preserve_rng_state=False
            )
        return total
