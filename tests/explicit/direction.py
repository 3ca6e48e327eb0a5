"""What looks at the directions of queries and keys: the cosines are formed pair by pair."""

from explicit.case import Case, Inputs, Reference, mixing
from torch import Tensor, nn


def cosines(given: Inputs) -> Tensor:
    """[batch, head, query, key]."""
    q, k = given.q[:, :, :, None], given.k[:, :, None]
    return (q * k).sum(-1) / ((q**2).sum(-1) * (k**2).sum(-1)).sqrt()


def qk_norm(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return mixing(core.get_parameter("gain") * cosines(given), seen) @ given.v


def standardised(x: Tensor) -> Tensor:
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    return centred / ((centred**2).sum(-1, keepdim=True) / x.shape[-1] + 1e-6).sqrt()


def qk_layer_norm(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    q = standardised(given.q) * core.get_parameter("norm_q.weight")
    k = standardised(given.k) * core.get_parameter("norm_k.weight")
    return mixing((q[:, :, :, None] * k[:, :, None]).sum(-1) / q.shape[-1] ** 0.5, seen) @ given.v


def cosine(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    sharpness = core.get_parameter("log_sharpness").exp()
    assert (sharpness < 100).all()
    return mixing(sharpness * cosines(given), seen) @ given.v


def kde(form: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        unit = given.k / (given.k**2).sum(-1, keepdim=True).sqrt()
        if form == "dot":
            kernel = (given.q[:, :, :, None] * unit[:, :, None]).sum(-1)
        else:
            kernel = -((given.q[:, :, :, None] - unit[:, :, None]) ** 2).sum(-1)
        return mixing(kernel / given.q.shape[-1] ** 0.5, seen) @ given.v

    return reference


CASES = [
    Case("qk_norm", qk_norm),
    Case("qk_norm", qk_layer_norm, {"form": "layer_norm"}),
    Case("cosine", cosine),
    Case("kde", kde("distance")),
    Case("kde", kde("dot"), {"form": "dot"}),
]
