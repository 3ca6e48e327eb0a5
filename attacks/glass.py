"""A model whose attention can be seen and whose tokens can be moved, for attacks on attention itself."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .draw import Draw
from .guard import check_samples
from .samples import Samples, Target


class Inside(NamedTuple):
    """What one pass shows of a model."""

    logits: Float[Tensor, "batch class"]
    """Its answer, equal to that of a plain call but for rounding."""
    attention: tuple[Float[Tensor, "batch head query key"] | None, ...]
    """Logits of the attention before their softmax, scale included, by layer; None for a layer that has none.

    Key i belongs to token i; keys that belong to no token, such as a sink, come after those. A number added to all
    logits of a query changes no attention, and which one was added tells nothing.
    """


class Steered(NamedTuple):
    """Some images and what is added to their tokens on the way: what an attack on the stream between layers returns."""

    pixels: Float[Tensor, "batch channel height width"]
    """The images, as they were given."""
    layer: int
    """The block whose input is moved, counted from 0."""
    delta: Float[Tensor, "batch token dim"]
    """What is added to it."""


@runtime_checkable
class Glass(Protocol):
    """A target that can be looked into; everything it returns is differentiable in what it is given."""

    deterministic: bool
    """As in `Target`."""
    layers: int
    """Number of blocks."""
    prefix_tokens: int
    """Tokens in front of the patches, which stand for no place in the image."""
    grid: tuple[int, int]
    """Rows and columns of patches; token prefix_tokens + r * columns + c is the patch in row r and column c."""

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """As in `Target`."""
        ...

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        """Return the logits and the attention of each layer."""
        ...

    def stream(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int) -> Float[Tensor, "batch token dim"]:
        """Return the tokens that block `layer` is given, prefix tokens first."""
        ...

    def steered(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int, delta: Tensor) -> Tensor:
        """Return the logits when `delta`, `[batch, token, dim]`, is added to the tokens that block `layer` is given."""
        ...


def glass(target: Target | None, attack: str) -> Glass:
    """Return a target that can be looked into. Raises ValueError, naming the attack, for one that cannot."""
    if target is None or not isinstance(target, Glass):
        raise ValueError(
            f"{attack} needs a model that it can look into, got {type(target).__name__}; give it a Glass, or choose an "
            "attack on the pixels alone such as pgd"
        )
    return target


def attentive(target: Target | None, samples: Samples, draw: Draw, attack: str) -> Glass:
    """Return a target whose attention can be attacked; looks at the first sample.

    Raises ValueError, naming the attack, for a target that cannot be looked into; where no layer shows logits, or one
    has fewer keys than tokens; for logits that are not finite, since no query can be pulled towards a hidden key; and
    for samples that are no images.
    """
    found = glass(target, attack)
    check_samples(samples)
    first = samples.rows([0])
    with torch.no_grad():
        shown = found.inside(first.pixels.float(), first.ids, draw.named("glass")).attention
    if all(logits is None for logits in shown):
        raise ValueError(
            f"{attack} needs logits of attention, and no layer of this {type(found).__name__} shows any; its "
            "attention is no softmax; choose an attack that needs none, such as adversarial_patch with place=saliency"
        )
    tokens = found.prefix_tokens + found.grid[0] * found.grid[1]
    for layer, logits in enumerate(shown):
        if logits is not None and logits.shape[-1] < tokens:
            raise ValueError(
                f"{attack} needs a key for each of the {tokens} tokens, layer {layer} has {logits.shape[-1]} keys"
            )
        if logits is not None and not logits.isfinite().all():
            raise ValueError(
                f"{attack} needs finite logits of attention, those of layer {layer} are not; lift its mask"
            )
    return found
