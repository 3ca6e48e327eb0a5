"""A plain vision transformer that owns its block loop: pre-norm blocks, a learned position table, a mean-pool head.

The head averages the patches, so that everything the last block does is read; after the last block of a class-token
network nobody reads the patches, and their collapse would mean nothing (decision 003).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .attention import QKV, Attention
from .block import block_noise, kept, network_noise, walked
from .initial_value import Generators, draw_initial_values
from .network import Network, Tap
from .noise import Noise
from .norm import Norm, NormName, norm, without_affine
from .site import Site


class VisionTransformerShape(NamedTuple):
    """Sizes of the network; every one enters the keys of its results."""

    image: int = 8
    """Side of the square input in pixels."""
    channels: int = 1
    """Input channels."""
    patch: int = 2
    """Side of a square patch in pixels."""
    dim: int = 64
    """Width of the stream."""
    depth: int = 4
    """Number of blocks."""
    heads: int = 4
    """Attention heads."""
    mlp_ratio: float = 2.0
    """Hidden width of the MLP over `dim`."""
    drop_path: float = 0.0
    """Probability of dropping the last block's branches; falls linearly to 0 at the first block."""
    classes: int = 10
    """Number of logits."""
    mean: float = 0.5
    """Pixel mean that is subtracted inside the network."""
    std: float = 0.5
    """Pixel standard deviation by which it divides inside the network."""
    extra_tokens: int = 0
    """Learned tokens in front of the patches, which the head does not read."""
    norm: NormName = "layer_norm"
    """Norm in front of attention, MLP and head."""


class TokenTable(nn.Module):
    """Learned vectors, one for each of some tokens."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens, dim))

    def draw(self, generators: Generators) -> None:
        """Draw normal values of standard deviation 0.02."""
        self.weight.copy_(0.02 * torch.randn(self.weight.shape, generator=generators("weight")))


class PositionTable(TokenTable):
    """One learned vector for each place."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the table to the tokens."""
        return x + self.weight


class ExtraTokens(TokenTable):
    """Learned tokens that stand for no patch, put in front of the others (registers, arXiv:2309.16588)."""

    def forward(self, x: Tensor) -> Tensor:
        """Put the tokens in front."""
        return torch.cat((self.weight.expand(len(x), -1, -1), x), 1)


class Block(nn.Module):
    """Pre-norm attention and MLP, each a residual branch that DropPath may skip for a sample."""

    def __init__(self, site: Site, core: nn.Module, mlp_ratio: float, drop_path: float, norm_name: NormName) -> None:
        super().__init__()
        hidden = round(site.dim * mlp_ratio)
        self.drop_path = drop_path
        self.norm1 = norm(norm_name, site.dim)
        self.attention = Attention(site, core)
        self.norm2 = norm(norm_name, site.dim)
        self.fc1 = nn.Linear(site.dim, hidden)
        self.fc2 = nn.Linear(hidden, site.dim)

    def noise(self) -> tuple[Noise, ...]:
        """Return what this block draws."""
        return block_noise(self.attention.core, self.drop_path)

    def forward(
        self,
        x: Tensor,
        first: QKV | None,
        previous: QKV | None,
        noise: Mapping[str, Tensor],
        calibrating: bool = False,
    ) -> tuple[Tensor, QKV]:
        """Return the new stream and this layer's projections."""
        drops = noise["drop_path"] if self.training and self.drop_path > 0 else None
        y, qkv = self.attention(self.norm1(x), x, None, first, previous, noise, calibrating)
        x = x + kept(y, self.drop_path, None if drops is None else drops[:, 0])
        y = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + kept(y, self.drop_path, None if drops is None else drops[:, 1]), qkv


class VisionTransformer(Network):
    """Images in [0, 1] to logits; normalisation is inside."""

    def __init__(self, shape: VisionTransformerShape, core: Callable[[Site], nn.Module]) -> None:
        super().__init__()
        if shape.image % shape.patch:
            raise ValueError(f"an image of {shape.image} px cannot be cut into patches of {shape.patch} px")
        if shape.dim % shape.heads:
            raise ValueError(f"a width of {shape.dim} cannot be shared by {shape.heads} heads")
        if not 0 <= shape.drop_path < 1:
            raise ValueError(f"drop_path is a probability below 1, got {shape.drop_path}")
        self.shape = shape
        side = shape.image // shape.patch
        tokens = side * side
        self.classes = shape.classes
        self.divisors = (shape.std,) * shape.channels
        self.embed = nn.Linear(shape.channels * shape.patch**2, shape.dim)
        self.position = PositionTable(tokens, shape.dim)
        self.extra = ExtraTokens(shape.extra_tokens, shape.dim) if shape.extra_tokens else None
        self.blocks = nn.ModuleList()
        for layer in range(shape.depth):
            site = Site(
                layer=layer,
                depth=shape.depth,
                dim=shape.dim,
                heads=shape.heads,
                head_dim=shape.dim // shape.heads,
                tokens=tokens + shape.extra_tokens,
                prefix_tokens=shape.extra_tokens,
                grid=(side, side),
                causal=False,
                scale=(shape.dim // shape.heads) ** -0.5,
            )
            drop_path = shape.drop_path * layer / max(shape.depth - 1, 1)
            self.blocks.append(Block(site, core(site), shape.mlp_ratio, drop_path, shape.norm))
        self.sites = tuple(block.attention.site for block in self._layers())
        self.norm = norm(shape.norm, shape.dim)
        self.head = nn.Linear(shape.dim, shape.classes)

    def _layers(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    def attentions(self) -> list[nn.Module]:
        """Return the cores, first layer first."""
        return [block.attention.core for block in self._layers()]

    def replace_attention(self, layer: int, core: nn.Module) -> None:
        """Put another core into a layer."""
        self._layers()[layer].attention.core = core

    def noise(self) -> tuple[Noise, ...]:
        """Return all noise that a pass needs, each name led by its block's index (`2.metric`)."""
        return network_noise(self._layers())

    def tokens(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch token dim"]:
        """Cut the normalised image into patches and embed them."""
        p = self.shape.patch
        x = (pixels - self.shape.mean) / self.shape.std
        x = x.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        embedded: Tensor = self.position(self.embed(x))
        return embedded

    def forward(
        self,
        pixels: Float[Tensor, "batch channel height width"],
        noise: Mapping[str, Tensor] | None = None,
        tap: Tap | None = None,
        calibrating: bool = False,
    ) -> Float[Tensor, "batch class"]:
        """Return the logits of a batch.

        `noise` holds what `self.noise()` asks for; a missing tensor raises a KeyError that names it. With
        `calibrating`, the batch is the calibration sample and every core sets its frozen quantities layer by layer on
        the way.
        """
        x = self.tokens(pixels)
        x = x if self.extra is None else self.extra(x)
        layers = self._layers()

        x = walked(
            layers,
            x,
            noise or {},
            training=self.training,
            checkpointing=self.checkpointing,
            calibrating=calibrating,
            show=None if tap is None else lambda layer, x: self._show(tap, layer, x, layers[layer].norm1),
            steer=self.steer,
        )
        if tap is not None:
            self._show(tap, len(layers), x, self.norm)
        logits: Tensor = self.head(self.norm(x[:, self.shape.extra_tokens :]).mean(1))
        return logits

    def _show(self, tap: Tap, layer: int, x: Tensor, read_by: Norm) -> None:
        patches = x[:, self.shape.extra_tokens :]
        tap("stream", layer, patches)
        tap("read", layer, without_affine(read_by, patches))


def build(
    core: Callable[..., nn.Module],
    settings: Mapping[str, Any],
    shape: VisionTransformerShape,
    seed: int,
    measured: Mapping[str, Float[Tensor, "layer head"]] | None = None,
) -> VisionTransformer:
    """Build a network around a core and draw its initial values from the training seed.

    `measured` holds, by name, what was measured on a donor; each core receives its own layer's row as a keyword.
    """
    rows = measured or {}

    def at(site: Site) -> nn.Module:
        return core(site, **settings, **{name: values[site.layer] for name, values in rows.items()})

    model = VisionTransformer(shape, at)
    draw_initial_values(model, seed)
    return model
