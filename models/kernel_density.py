"""Keys as samples of a density: kernels between tokens, and the attention that a kernel density estimate gives."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attention import softmax_attention


def squared_distance(
    a: Float[Tensor, "*leading one dim"], b: Float[Tensor, "*leading other dim"]
) -> Float[Tensor, "*leading one other"]:
    """Return |a_i - b_j|^2 for all pairs, in float32 or wider whatever the inputs.

    The distances are differences of squares, so the origin is put at the first point of `b`: points that lie close
    together far from zero keep their distances, and no point needs to look at a later one.

    >>> squared_distance(torch.tensor([[3.0], [5.0]]), torch.tensor([[3.0], [7.0]])).tolist()
    [[0.0, 16.0], [4.0, 4.0]]
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        origin = b[..., :1, :].detach().to(wide)
        a, b = a.to(wide) - origin, b.to(wide) - origin
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
        return (squares - 2 * a @ b.transpose(-2, -1)).clamp(min=0)


def gaussian_kernel(x: Float[Tensor, "*leading token dim"], scale: float) -> Float[Tensor, "*leading token token"]:
    """Return exp(-scale |x_i - x_j|^2), in [0, 1] with ones on the diagonal, in float32 or wider."""
    return (-scale * squared_distance(x, x)).exp()


def weighted_estimate(
    q: Float[Tensor, "batch head query dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key value_dim"],
    joint: Float[Tensor, "batch head key"],
    marginal: Float[Tensor, "batch head key"],
    *,
    scale: float,
    mask: Bool[Tensor, "batch key"] | None,
) -> Float[Tensor, "batch head query value_dim"]:
    """Return sum_j joint_j exp(scale q k_j') v_j / sum_j marginal_j exp(scale q k_j') in one fused call.

    Softmax normalises both sums alike, so its averages of joint v and of marginal have the ratio that is asked for,
    without logarithms of weights that may be 0. Where the second average is 0, the first one is returned as it is.
    """
    joint, marginal = joint.to(v.dtype)[..., None], marginal.to(v.dtype)[..., None]
    sums = softmax_attention(q, k, torch.cat((joint * v, marginal), -1), scale=scale, mask=mask)
    total = sums[..., -1:]
    return sums[..., :-1] / torch.where(total == 0, 1, total)
