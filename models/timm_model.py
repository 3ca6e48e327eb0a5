"""`timm:<name>` with another attention: built with initial values by name, or filled with trained weights."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .initial_value import draw_initial_values, generator_for
from .position import Resampling
from .site import Site
from .timm_network import TimmFacts, TimmNetwork, require_fit, site_of
from .timm_weights import Head, fetched_weights, load_strictly, read_weights
from .variant import Variant, swap_fault, why_unfit

GIVEN = ("num_classes", "img_size", "in_chans", "pretrained", "pretrained_cfg", "checkpoint_path", "features_only")
"""Options of timm that are set here, or that would make something else than a classifier."""
TABLES = ("pos_embed", "cls_token", "reg_token", "dist_token")
"""Learned tokens and positions, which no layer owns."""


def build_timm(
    name: str,
    variant: Variant,
    settings: Mapping[str, Any],
    *,
    classes: int,
    image: int,
    channels: int = 3,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int,
    weights: Path | None = None,
    pretrained: bool = False,
    head: Head = "keep",
    resampling: Resampling | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    measured: Mapping[str, Float[Tensor, "layer head"]] | None = None,
) -> TimmNetwork:
    """Build a timm model around a variant.

    `mean` and `std` are the model's own unless given, one number or one a channel. `weights` is a safetensors file with
    timm's names, `pretrained` fetches timm's; both are loaded strictly, with `head` and `resampling` as
    `load_strictly` says, after the initial values were drawn from `seed`. `options` go to timm (`depth`, `embed_dim`,
    `drop_path_rate`, ...). `measured` holds, by name, what was measured on a donor; each core receives its own layer's
    row as a keyword.

    Raises ValueError, in words for the user, where the model, the variant or the weights do not fit, and OSError where
    `pretrained` weights cannot be fetched.
    """
    if weights is not None and pretrained:
        raise ValueError(f"timm:{name} was given a file of weights and pretrained=True; set one of the two")
    model = _created(name, classes, image, channels, options, seed)
    _require_variant(variant, model, name)
    rows, chosen = measured or {}, {**variant.settings, **settings}

    def at(site: Site) -> nn.Module:
        own = {quantity: values[site.layer] for quantity, values in rows.items()}
        core: nn.Module = variant.core(site, **chosen, **own)
        return core

    normalisation = _normalisation(name, model.default_cfg, channels, mean, std)
    facts = TimmFacts(name, "untrained", "random", "random", "random", model.global_pool, *normalisation)
    network = TimmNetwork(model, at, facts if model.pos_embed is not None else facts._replace(position="none"))
    _draw(network, seed)
    if weights is not None or pretrained:
        given = fetched_weights(name) if weights is None else read_weights(weights)
        origin = "pretrained" if weights is None else weights.name
        entry = load_strictly(model, given, origin, head, resampling)
        network.facts = facts._replace(
            swap=variant.pretrained, weights=origin, head=entry.head, position=entry.position
        )
    return network


def _require_variant(variant: Variant, model: Any, name: str) -> None:
    site = site_of(model, 0)
    unfit = why_unfit(variant, tokens=site.tokens - site.prefix_tokens, heads=site.heads, grid=True)
    reason = swap_fault(variant) or (unfit and f"it {unfit}; give a larger image or other options")
    if reason:
        raise ValueError(f"{variant.name} cannot enter timm:{name}: {reason}")


def _created(name: str, classes: int, image: int, channels: int, options: Mapping[str, Any], seed: int) -> Any:
    """Return timm's model with its own initial values; the global generator is left as it was."""
    if not timm.is_model(name):
        known = timm.list_models()
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"unknown timm model '{name}'; {hint}(timm.list_models() lists {len(known)})")
    taken = [option for option in GIVEN if option in options]
    if taken:
        raise ValueError(
            f"timm:{name} was given the options {', '.join(taken)}; "
            "use the arguments classes, image, channels, weights and pretrained"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator_for(seed, f"timm:{name}").get_state())
        try:
            model: Any = timm.create_model(name, num_classes=classes, img_size=image, in_chans=channels, **options)
        except (TypeError, AssertionError, ValueError) as error:
            why = str(error) or f"timm raised {type(error).__name__}"
            raise ValueError(
                f"timm:{name} cannot be built at {image} px with the options {dict(options)} ({why}); give options "
                "that this model takes, and a vision transformer (timm.list_models('vit*'))"
            ) from error
    require_fit(model, name)
    high, wide = model.patch_embed.patch_size
    if image % high or image % wide or classes < 1:
        raise ValueError(
            f"timm:{name} was asked for {classes} classes at {image} px; allowed are at least 1 class and a multiple "
            f"of the patch, {high} x {wide}: set another image, or the option patch_size"
        )
    return model


def _normalisation(
    name: str,
    cfg: Mapping[str, Any],
    channels: int,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = []
    for what, given in (("mean", mean), ("std", std)):
        value = cfg[what] if given is None else given
        numbers = (float(value),) * channels if isinstance(value, (int, float)) else tuple(map(float, value))
        if len(numbers) != channels:
            source = f"timm:{name} has" if given is None else "you gave"
            raise ValueError(
                f"{source} {len(numbers)} numbers for the {what} of {channels} channels; give `{what}` as one number, "
                "or one for each channel"
            )
        if what == "std" and min(numbers) <= 0:
            raise ValueError(f"timm:{name} was given the std {numbers}; only numbers above 0 are allowed; set others")
        found.append(numbers)
    return found[0], found[1]


@torch.no_grad()
def _draw(network: TimmNetwork, seed: int) -> None:
    """Draw what layers own by name, the three projections of a fused one apart, and then the tables.

    What is left keeps timm's values: norms, LayerScale, the turns of mixed rotary embeddings.
    """
    draw_initial_values(network, seed)
    for layer, block in enumerate(network.model.blocks):
        fused = block.attn.qkv
        for projection, part in zip("qkv", () if fused is None else fused.weight.chunk(3), strict=False):
            generator = generator_for(seed, f"model.blocks.{layer}.attn.qkv.{projection}.weight")
            part.copy_(nn.init.xavier_uniform_(torch.empty(part.shape), generator=generator))
    for name in TABLES:
        table = getattr(network.model, name, None)
        if table is not None:
            table.copy_(0.02 * torch.randn(table.shape, generator=generator_for(seed, f"model.{name}")))
