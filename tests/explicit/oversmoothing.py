"""What is done against oversmoothing: maps and outputs are taken apart into their uniform part and the rest."""

import torch
from explicit.case import Case, Inputs, Reference, Whole, mixing
from explicit.softmax_family import softmax
from torch import Tensor, nn

from attnbench.models.attention import Attention


def uniform(seen: Tensor) -> Tensor:
    """[batch, query, key]: each query weighs what it sees alike."""
    return seen.double() / seen.sum(-1, keepdim=True)


def softmax_map(given: Inputs, seen: Tensor) -> Tensor:
    return mixing(given.q.shape[-1] ** -0.5 * given.q @ given.k.mT, seen)


def softmax_layer(given: Inputs, seen: Tensor, host: Attention) -> Tensor:
    """The projected output of softmax attention, head by head."""
    site, y = host.site, host.out.bias.expand_as(given.x)
    for h in range(site.heads):
        own = slice(h * site.head_dim, (h + 1) * site.head_dim)
        q, k, v = (given.x @ p.weight[own].mT + p.bias[own] for p in (host.q, host.k, host.v))
        a = mixing((site.scale * q @ k.mT)[:, None], seen)[:, 0]
        y = y + a @ v @ host.out.weight[:, own].mT
    return y


def attn_scale(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    a, c = softmax_map(given, seen), uniform(seen)[:, None]
    return (c + (1 + core.get_parameter("weight")[:, None, None]) * (a - c)) @ given.v


def feat_scale(times: int) -> Whole:
    def whole(given: Inputs, seen: Tensor, host: Attention) -> Tensor:
        y, eye = softmax_layer(given, seen, host), torch.eye(seen.shape[-1]).double()
        s, t = host.core.get_parameter("mean_scale"), host.core.get_parameter("rest_scale")
        low, high = uniform(seen), eye - uniform(seen)
        return y + times * (low @ y @ torch.diag(s) + high @ y @ torch.diag(t))

    return whole


def contranorm(strength: float, kept: float, axis: str) -> Whole:
    def whole(given: Inputs, seen: Tensor, host: Attention) -> Tensor:
        h = given.residual + softmax_layer(given, seen, host)
        cosine = torch.einsum("btd,bsd->bts", h, h) / torch.einsum("bt,bs->bts", *2 * [(h**2).sum(-1).sqrt()])
        if axis == "tokens":
            near = mixing(cosine[:, None], seen)[:, 0] @ h
        else:
            alike = torch.einsum("btd,bte,bt->bde", h, h, 1 / (h**2).sum(-1)).exp()
            near = torch.einsum("bte,bed->btd", h, alike / alike.sum(-1, keepdim=True))
        return kept * h - strength * near - given.residual

    return whole


def shaped(gained: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        g = core.get_parameter("query_gain")[:, None, None] if gained else 1
        a, b, c = (core.get_parameter(n)[:, None, None] for n in ("skip", "gain", "centre"))
        eye = torch.eye(seen.shape[-1]).double()
        return (a * eye + b * softmax_map(given._replace(q=g * given.q), seen) - c * uniform(seen)[:, None]) @ given.v

    return reference


CASES = [
    Case("attn_scale", attn_scale),
    Case("feat_scale", softmax, whole=feat_scale(1), masked=False),
    Case("feat_scale", softmax, {"form": "released"}, whole=feat_scale(2), masked=False),
    Case("contranorm", softmax, whole=contranorm(0.01, 1.01, "tokens"), masked=False),
    Case("contranorm", softmax, {"strength": 0.7}, whole=contranorm(0.7, 1.7, "tokens"), masked=False),
    Case("contranorm", softmax, {"strength": 0.7, "form": "vit"}, whole=contranorm(0.7, 1, "tokens"), masked=False),
    Case(
        "contranorm",
        softmax,
        {"strength": 0.7, "axis": "features"},
        whole=contranorm(0.7, 1.7, "features"),
        masked=False,
        causal=False,
    ),
    Case("shaped", shaped(True)),
    Case("shaped", shaped(False), {"start": "drawn"}),
]
