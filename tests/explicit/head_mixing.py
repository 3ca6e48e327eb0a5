"""Maps that are mixed, standardised or damped in full: heads that talk, factors for pairs of places."""

import torch
from explicit.case import Case, Inputs, Reference, mixing
from torch import Tensor, nn


def talking_heads(biased: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        before, after = core.get_parameter("before"), core.get_parameter("after")
        heads = range(given.q.shape[1])
        logits = given.q.shape[-1] ** -0.5 * given.q @ given.k.mT
        talked = torch.stack([sum(before[h, g] * logits[:, h] for h in heads) for g in heads], 1)
        maps = mixing(talked, seen)
        mixed = [sum(after[h, g] * maps[:, h] for h in heads) for g in heads]
        if biased:
            mixed = [m + b * seen for m, b in zip(mixed, core.get_parameter("bias"), strict=True)]
        return torch.stack([m @ given.v[:, g] for g, m in enumerate(mixed)], 1)

    return reference


def re_attention(norm: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        mixture = core.get_parameter("mixture")
        maps = mixing(given.q.shape[-1] ** -0.5 * given.q @ given.k.mT, seen)
        mixed = torch.einsum("hg,bhts->gbts", mixture, maps)
        return torch.stack([normed(m, g, given, norm, core) * seen @ given.v[:, g] for g, m in enumerate(mixed)], 1)

    return reference


def normed(maps: Tensor, head: int, given: Inputs, norm: str, core: nn.Module) -> Tensor:
    """One head's maps, `[batch, query, key]`, standardised over the pairs of real tokens of the batch or the sample."""
    if norm == "none":
        return maps
    names = ("batch_norm.weight", "batch_norm.bias") if norm == "batch" else ("gain", "shift")
    gain, shift = (core.get_parameter(n)[head] for n in names)
    real = [
        torch.arange(maps.shape[-1]) if given.mask is None else m.nonzero()[:, 0]
        for m in (maps if given.mask is None else given.mask)
    ]
    entries = [m[kept][:, kept].flatten() for m, kept in zip(maps, real, strict=True)]
    entries = entries if norm == "sample" else [torch.cat(entries)] * len(maps)
    means = torch.stack([e.mean() for e in entries])[:, None, None]
    variances = torch.stack([e.var(correction=0) for e in entries])[:, None, None]
    return gain * (maps - means) / (variances + 1e-5).sqrt() + shift


def paas(unit: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        k = given.k / (given.k**2).sum(-1, keepdim=True).sqrt() if unit else given.k
        logits = given.q.shape[-1] ** -0.5 * given.q @ k.mT
        return mixing(logits / (1 + (-core.get_parameter("weight")).exp()), seen) @ given.v

    return reference


CASES = [
    Case("talking_heads", talking_heads(False)),
    Case("talking_heads", talking_heads(False), {"start": "identity"}),
    Case("talking_heads", talking_heads(True), {"bias": True}),
    Case("re_attention", re_attention("sample"), causal=False),
    Case("re_attention", re_attention("batch"), {"norm": "batch"}, causal=False, masked=False),
    Case("re_attention", re_attention("none"), {"norm": "none"}),
    Case("paas", paas(False)),
    Case("paas", paas(True), {"keys": "unit"}),
]
