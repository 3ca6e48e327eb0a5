"""What blocks that carry a core share, whoever owns their weights: noise, branches that DropPath may skip, the walk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import QKV, DrawsNoise
from .noise import Noise


@runtime_checkable
class CarryingBlock(Protocol):
    """One block: takes the stream and other layers' projections, returns the new stream and its own projections."""

    def noise(self) -> tuple[Noise, ...]:
        """Return what this block draws."""
        ...

    def __call__(
        self, x: Tensor, first: QKV | None, previous: QKV | None, noise: Mapping[str, Tensor], calibrating: bool = False
    ) -> tuple[Tensor, QKV]:
        """Return the new stream, `[batch, token, dim]`, and the queries, keys and values that the core was given."""
        ...


def block_noise(core: nn.Module, drop_path: float) -> tuple[Noise, ...]:
    """Return what a block draws: its core's noise, and two uniform numbers a sample for DropPath."""
    own = tuple(core.noise) if isinstance(core, DrawsNoise) else ()
    return (*own, Noise("drop_path", (2,), "uniform", "train")) if drop_path > 0 else own


def network_noise(blocks: Sequence[CarryingBlock]) -> tuple[Noise, ...]:
    """Return all noise that a pass needs, each name led by its block's index (`2.metric`)."""
    return tuple(n._replace(name=f"{i}.{n.name}") for i, block in enumerate(blocks) for n in block.noise())


def kept(
    branch: Float[Tensor, "batch token dim"], drop_path: float, uniform: Float[Tensor, " batch"] | None
) -> Float[Tensor, "batch token dim"]:
    """Return a residual branch without the samples that DropPath drops, the others scaled up; whole without numbers."""
    if uniform is None:
        return branch
    share = (uniform >= drop_path).to(branch.dtype) / (1 - drop_path)
    return branch * share[:, None, None]


def walked(
    blocks: Sequence[CarryingBlock],
    x: Float[Tensor, "batch token dim"],
    noise: Mapping[str, Tensor],
    *,
    training: bool,
    checkpointing: bool,
    calibrating: bool,
    show: Callable[[int, Tensor], None] | None,
    steer: Callable[[int, Tensor], Tensor] | None,
) -> Float[Tensor, "batch token dim"]:
    """Pass the stream through the blocks and hand each the projections of the first and of the previous one.

    `noise` holds what `network_noise` asks for; a missing tensor raises a KeyError that names it. With `checkpointing`,
    blocks are computed again in the backward pass of training. `steer` is called with each layer and the tokens on
    their way to its block and returns those that it gets; `show` is called with each layer and what it reads.
    """
    first: QKV | None = None
    previous: QKV | None = None
    for layer, block in enumerate(blocks):
        own = {n.name: noise[f"{layer}.{n.name}"] for n in block.noise() if training or n.when == "always"}
        x = x if steer is None else steer(layer, x)
        if show is not None:
            show(layer, x)
        if checkpointing and training and not calibrating:
            x, previous = checkpoint(block, x, first, previous, own, use_reentrant=False)
        else:
            x, previous = block(x, first, previous, own, calibrating)
        first = previous if first is None else first
    return x
