"""The attention layer that is timed: one variant between its projections, with everything that it reads at hand."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...attacks.draw import Draw
from ...models.attention import QKV, Attention, Calibrates, DrawsNoise
from ...models.initial_value import draw_initial_values
from ...models.site import Site
from ...models.variant import Variant, why_unfit
from ..noise import drawn

DIM, HEADS, HEAD_DIM = 256, 4, 64
"""Heads of the width that vision transformers have, and an even number of them."""
DEPTH, LAYER = 12, 5
"""A layer in the middle, where the first and the previous one are two layers."""
TOKENS_A_BATCH = 1024
"""So many that a call takes milliseconds and starting its operations takes a small part of them."""


class Size(NamedTuple):
    """How many tokens a layer gets, and where they come from."""

    tokens: int
    """Tokens before those that the variant brings."""
    prefix_tokens: int
    """Tokens that stand for no patch."""
    grid: tuple[int, int] | None
    """Rows and columns."""


def size_of(tokens: int) -> Size:
    """Return a square of patches, with a class token where that makes a square; no grid otherwise.

    >>> size_of(197)
    Size(tokens=197, prefix_tokens=1, grid=(14, 14))
    """
    for prefix in (0, 1):
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 1 and side * side == tokens - prefix:
            return Size(tokens, prefix, (side, side))
    return Size(tokens, 0, None)


def sizes() -> dict[str, int]:
    """Return the sizes of every timed layer."""
    return {"dim": DIM, "heads": HEADS, "head_dim": HEAD_DIM, "layer": LAYER, "tokens_a_batch": TOKENS_A_BATCH}


def extra_tokens(variant: Variant, settings: Mapping[str, Any]) -> int:
    """Return how many tokens the variant brings itself."""
    return int(settings[variant.extra_tokens]) if variant.extra_tokens else 0


def remarks(variant: Variant, settings: Mapping[str, Any]) -> list[str]:
    """Return what is timed of a variant that changes more than a layer's attention, or what is not."""
    found = []
    if extra := extra_tokens(variant, settings):
        found.append(f"timed with {extra} more tokens than its reference")
    if variant.norm != "layer_norm":
        found.append("its norm stands outside the layer and is not timed")
    if variant.parameters_of:
        found.append("the MLPs that it widens are not timed")
    if variant.calibrates or variant.measured:
        found.append("what it measures once, on a donor or after an epoch, is not timed")
    return found


def unfit(variant: Variant, tokens: int) -> str:
    """Return why a variant makes no sense at these sizes, an empty string where it does."""
    return why_unfit(variant, tokens=tokens, heads=HEADS, grid=size_of(tokens).grid is not None)


def site_of(variant: Variant, settings: Mapping[str, Any], tokens: int) -> Site:
    """Return where the timed core sits."""
    extra, size = extra_tokens(variant, settings), size_of(tokens)
    return Site(
        LAYER,
        DEPTH,
        DIM,
        HEADS,
        HEAD_DIM,
        tokens + extra,
        size.prefix_tokens + extra,
        size.grid,
        causal=False,
        scale=HEAD_DIM**-0.5,
    )


class TimedLayer:
    """A layer in training mode with its inputs and noise; a call runs it forward and backward."""

    def __init__(self, variant: Variant, settings: Mapping[str, Any], tokens: int, seed: int = 0) -> None:
        site = site_of(variant, settings, tokens)
        measured = {name: torch.ones(site.heads) for name in variant.measured}
        self.host = Attention(site, variant.core(site, **settings, **measured))
        draw_initial_values(self.host, seed)
        self.host.train()
        batch = max(TOKENS_A_BATCH // tokens, 1)
        generator = torch.Generator().manual_seed(seed)
        x, residual, self.upstream, *others = (
            torch.randn(batch, site.tokens, site.dim, generator=generator) for _ in range(5)
        )
        self.x, self.residual = x.requires_grad_(), residual.requires_grad_()
        with torch.no_grad():
            first, previous = (QKV(*(t.clone() for t in self.host.project(other))) for other in others)
        self.first, self.previous = (QKV(*(t.requires_grad_() for t in qkv)) for qkv in (first, previous))
        ids = [str(sample) for sample in range(batch)]
        core = self.host.core
        noises = core.noise if isinstance(core, DrawsNoise) else ()
        self.noise = drawn(noises, ids, Draw(seed, "perf", "train"), training=True)
        if isinstance(core, Calibrates):
            with torch.no_grad():
                self._forward(calibrating=True)
        self.leaves: list[Tensor] = [
            *(self.x, self.residual, *self.first, *self.previous),
            *(p for p in self.host.parameters() if p.requires_grad),
        ]

    def _forward(self, calibrating: bool = False) -> Tensor:
        y: Tensor
        y, _ = self.host(self.x, self.residual, None, self.first, self.previous, self.noise, calibrating)
        return y

    def __call__(self) -> tuple[Tensor | None, ...]:
        """Return the gradients by everything that is learned or read, as a step of training needs them."""
        return torch.autograd.grad(self._forward(), self.leaves, self.upstream, allow_unused=True)
