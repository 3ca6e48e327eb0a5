"""A vision transformer of timm whose attention is a core, with timm's weights under timm's names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from timm.layers.patch_dropout import PatchDropout, PatchDropoutWithIndices
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .attention import Omits, Projects
from .block import network_noise, walked
from .network import Network, Tap
from .noise import Noise
from .site import Site
from .timm_block import NORMS, SwappedBlock, block_fault, names, read_through, read_through_pool

MODELS = (VisionTransformer, VisionTransformerDistilled, Eva)
"""Models whose way from pixels to blocks and from blocks to logits is understood."""


class TimmFacts(NamedTuple):
    """How a variant and weights came into a timm model, for a report."""

    model: str
    """timm's name."""
    swap: str
    """What the variant does to weights trained with softmax: `lossless` or `lossy`; `untrained` without weights."""
    weights: str
    """`random`, `pretrained`, or the name of the file."""
    head: str
    """`random`, `kept` from the weights, or `new`."""
    position: str
    """What became of the weights' position table: `random`, `none`, `kept`, or the grids and the rule."""
    pool: str
    """What the head reads, in timm's words; with `token` nobody reads the patches after the last block."""
    mean: tuple[float, ...]
    """Pixel means that are subtracted inside."""
    std: tuple[float, ...]
    """Pixel standard deviations by which is divided inside."""


def model_fault(model: nn.Module) -> str:
    """Return why a timm model cannot be used, with what can be done; an empty string where it can.

    Dropout and random coordinates draw from the global generator, which would make results depend on everything that
    runs before, so they are refused; DropPath is drawn as declared noise.
    """
    blocks = getattr(model, "blocks", None)
    if type(model) not in MODELS or not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not len(blocks):
        kind = (
            f" of {names(type(blocks[0]))}"
            if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks)
            else ""
        )
        return (
            f"it is a {names(type(model))}{kind}; supported are {names(*MODELS)}, whose blocks can be walked one by one"
        )
    inner = cast(Any, model)
    if type(inner.patch_embed) is not PatchEmbed:
        return f"it embeds patches with {names(type(inner.patch_embed))}; supported is {names(PatchEmbed)}"
    if not inner.global_pool:
        return "it returns tokens and no logits; leave out global_pool, or set it to token, avg or another pool"
    faults = [fault for block in blocks if (fault := block_fault(block))]
    for norm in (inner.norm, inner.fc_norm):
        if not isinstance(norm, (*NORMS, nn.Identity)):
            faults.append(f"its head reads through {names(type(norm))}; supported are {names(*NORMS)}")
    return faults[0] if faults else _randomness(model)


def require_fit(model: nn.Module, name: str) -> None:
    """Raise ValueError where a timm model cannot be used."""
    fault = model_fault(model)
    if fault:
        raise ValueError(f"timm:{name} cannot carry another attention: {fault}")


def _randomness(model: nn.Module) -> str:
    for name, module in model.named_modules():
        rate = module.p if isinstance(module, nn.Dropout) else 0.0
        rate = getattr(module, "prob", 0.0) if isinstance(module, (PatchDropout, PatchDropoutWithIndices)) else rate
        if rate > 0:
            return (
                f"its {name} drops with probability {rate} from the global generator; leave out the options that end "
                "in drop_rate, or set them to 0; drop_path_rate alone is allowed"
            )
    rope = getattr(model, "rope", None)
    neutral = {"shift_coords": 0.0, "jitter_coords": 1.0, "rescale_coords": 1.0}
    moved = [name for name, value in neutral.items() if getattr(rope, name, None) not in (None, value)]
    if moved:
        options = ", ".join(f"rope_{name}={neutral[name]}" for name in moved)
        return (
            "its rotary coordinates are moved at random while training, from the global generator; "
            f"set the options {options}, which changes nothing outside training"
        )
    return ""


def site_of(model: Any, layer: int) -> Site:
    """Return where the attention of a layer sits."""
    attention, embed = model.blocks[layer].attn, model.patch_embed
    return Site(
        layer=layer,
        depth=len(model.blocks),
        dim=model.embed_dim,
        heads=attention.num_heads,
        head_dim=attention.head_dim,
        tokens=embed.num_patches + model.num_prefix_tokens,
        prefix_tokens=model.num_prefix_tokens,
        grid=tuple(embed.grid_size),
        causal=False,
        scale=attention.scale,
    )


class TimmNetwork(Network):
    """Images in [0, 1] to logits; normalisation is inside.

    `model` is timm's, untouched: its tensors keep their names, and calling it runs timm's softmax attention. `cores`
    holds one core a layer. The blocks are walked here, because timm's own loop has no place for layer state, noise and
    taps. Attention inside a pooling head stays timm's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, core: Callable[[Site], nn.Module], facts: TimmFacts) -> None:
        super().__init__()
        require_fit(model, facts.model)
        inner = cast(Any, model)
        self.model = inner
        self.facts = facts
        self.classes = inner.num_classes
        self.sites = tuple(site_of(inner, layer) for layer in range(len(inner.blocks)))
        self.cores = nn.ModuleList(core(site) for site in self.sites)
        for built in self.cores:
            if isinstance(built, (Projects, Omits)):
                raise ValueError(
                    f"timm:{facts.model} cannot carry {type(built).__name__}: it projects in its own way, and the "
                    "projections are the model's; use it in the backbone vit"
                )
        self.register_buffer("mean", torch.tensor(facts.mean).view(-1, 1, 1), persistent=False)
        channels = inner.patch_embed.proj.in_channels
        self.divisors = facts.std if len(facts.std) == channels else facts.std[:1] * channels
        self.register_buffer("std", torch.tensor(facts.std).view(-1, 1, 1), persistent=False)

    @property
    def inner(self) -> nn.Module:
        """The timm model, whose tensors a file of weights names."""
        model: nn.Module = self.model
        return model

    def origin(self) -> dict[str, Any]:
        """Return how weights and mechanism came into it."""
        return self.facts._asdict()

    def attentions(self) -> list[nn.Module]:
        """Return the cores, first layer first."""
        return list(self.cores)

    def replace_attention(self, layer: int, core: nn.Module) -> None:
        """Put another core into a layer."""
        self.cores[layer] = core

    def _layers(self) -> list[SwappedBlock]:
        parts = zip(self.sites, self.model.blocks, self.cores, strict=True)
        return [SwappedBlock(site, block, core) for site, block, core in parts]

    def noise(self) -> tuple[Noise, ...]:
        """Return all noise that a pass needs, each name led by its block's index (`2.metric`)."""
        return network_noise(self._layers())

    def tokens(
        self, pixels: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch token dim"], Sequence[Tensor | None]]:
        """Return the tokens that the first block reads, and each layer's rotation, None where there is none."""
        wanted = (self.model.in_chans, *self.model.patch_embed.img_size)
        if pixels.shape[1:] != wanted:
            raise ValueError(
                f"timm:{self.facts.model} was given images {list(pixels.shape[1:])}, it is built for {list(wanted)}, "
                "[channel, height, width]; build it with that `image` and those `channels`"
            )
        placed = self.model._pos_embed(self.model.patch_embed((pixels - self.mean) / self.std))
        x, rope = placed if isinstance(placed, tuple) else (placed, None)
        ropes = rope.unbind() if getattr(self.model, "rope_mixed", False) else [rope] * len(self.cores)
        return self.model.norm_pre(x), ropes

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
        the way. What taps show at layer `depth` is what `final_read` says.
        """
        x, ropes = self.tokens(pixels)
        layers = [block._replace(rope=rope) for block, rope in zip(self._layers(), ropes, strict=True)]
        x = walked(
            layers,
            x,
            noise or {},
            training=self.training,
            checkpointing=self.checkpointing,
            calibrating=calibrating,
            show=None if tap is None else lambda layer, x: self._show(tap, layer, x),
            steer=self.steer,
        )
        if tap is not None:
            tap("stream", len(self.cores), x[:, self.model.num_prefix_tokens :])
            tap("read", len(self.cores), self.final_read(x))
        logits: Tensor = self.model.forward_head(self.model.norm(x))
        return logits

    def _show(self, tap: Tap, layer: int, x: Tensor) -> None:
        patches = x[:, self.model.num_prefix_tokens :]
        tap("stream", layer, patches)
        tap("read", layer, read_through(self.model.blocks[layer].norm1, patches))

    def final_read(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch patch dim"]:
        """Return the patches of the last stream as the head reads them, without learned gain and bias.

        Where timm norms the pooled vector in place of the tokens, the patches are centred and divided by the pooled
        vector's spread: of a mean pool they are then the parts of what that norm returns. A head that reads the class
        token alone reads none of them.
        """
        model, patches = self.model, x[:, self.model.num_prefix_tokens :]
        pooled_first = isinstance(model.norm, nn.Identity) and model.attn_pool is None
        if pooled_first and not isinstance(model.fc_norm, nn.Identity):
            return read_through_pool(model.fc_norm, patches, model.pool(x))
        return read_through(model.norm, patches)
