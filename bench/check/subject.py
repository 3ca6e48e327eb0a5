"""A variant under examination: its cores at sites of every kind, and whole networks that carry it."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...attacks.draw import Draw
from ...attacks.samples import Samples
from ...models.attention import Attention
from ...models.demand import carrying
from ...models.initial_value import draw_initial_values
from ...models.site import Site
from ...models.variant import Setting, Variant
from ...models.vit import VisionTransformer, VisionTransformerShape, build
from ..catalog import Entry
from ..fit import calibrate
from ..noise import drawn
from .face import Face, calibrated, faces_of

DIM, HEADS, HEAD_DIM, DEPTH = 11, 3, 5, 7
"""Sizes of single layers: different primes, so that no axis can stand in for another. With a depth of 7 the layers are
the first one, one in the middle and the last one."""
MOVED = 0.3
"""Standard deviation by which learned tensors are moved from their initial values, which may hide a path."""
ROWS = 11
"""Samples of a network's batch."""


class Size(NamedTuple):
    """How many tokens a layer has, and where they come from."""

    tokens: int
    """Number of tokens, prefix tokens included."""
    prefix_tokens: int = 0
    """Those that stand for no patch."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches."""


def sizes(variant: Variant, settings: Mapping[str, Any]) -> list[Size]:
    """Return two sizes that the variant accepts: primes, or two grids where it needs one."""
    wanted = settings.get(variant.extra_tokens, 0)
    extra = wanted if isinstance(wanted, int) else 0
    least = variant.minimum_tokens
    if variant.needs_grid:
        rows = next(n for n in range(3, least + 4) if n * (n + 2) >= least)
        patches = rows * (rows + 2)
        return [Size(patches + extra, extra, (rows, rows + 2)), Size(patches + 1 + extra, 1 + extra, (rows + 2, rows))]
    primes = [n for n in range(max(least, 7), 2 * max(least, 7) + 7) if all(n % d for d in range(2, n))]
    return [Size(n + extra, extra) for n in primes[:2]]


def in_any_layer(name: str) -> str:
    """Return a parameter's name without its layer, so that those of all layers share it.

    >>> in_any_layer("blocks.2.attention.q.weight")
    'blocks.attention.q.weight'
    """
    return ".".join(part for part in name.split(".") if not part.isdigit())


@torch.no_grad()
def move(parameters: Iterable[Tensor], amount: float) -> None:
    """Move tensors from their initial values, always in the same directions."""
    generator = torch.Generator().manual_seed(17)
    for parameter in parameters:
        parameter.add_(amount * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


class Subject:
    """One variant with its settings."""

    def __init__(self, entry: Entry[Variant], origin: str = "", builtin: bool = False) -> None:
        self.entry = entry
        self.origin = origin
        self.builtin = builtin
        self.variant = entry.value
        self.settings = dict(entry.settings)
        self.core = getattr(entry.value.core, "resolved", lambda: entry.value.core)()
        self.sizes = sizes(self.variant, self.settings)
        self.heads = HEADS * max(self.variant.heads_multiple_of, 1)

    @property
    def by_default(self) -> bool:
        """Whether the settings are those that the declaration speaks of."""
        return self.settings == dict(self.variant.settings)

    def site(self, layer: int = 1, *, causal: bool = False, size: Size | None = None, head_dim: int = HEAD_DIM) -> Site:
        """Return a site of this subject's sizes."""
        tokens, prefix, grid = size or self.sizes[0]
        return Site(layer, DEPTH, DIM, self.heads, head_dim, tokens, prefix, grid, causal, head_dim**-0.5)

    def host(
        self,
        site: Site,
        settings: Mapping[str, Setting] | None = None,
        *,
        moved: float = MOVED,
        dtype: torch.dtype = torch.float64,
    ) -> Attention:
        """Build a layer in eval mode, its projections drawn and its core's learned tensors moved."""
        measured = {name: torch.linspace(0.5, 1.5, site.heads) for name in self.variant.measured}
        host = Attention(site, self.core(site, **{**self.settings, **(settings or {})}, **measured))
        draw_initial_values(host, 0)
        host = host.to(torch.float64).eval()
        move(host.core.parameters(), moved)
        if moved:
            calibrated(Face(host, False))
        return host.to(dtype)

    def faces(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        causal: bool = False,
        size: Size | None = None,
        dtype: torch.dtype = torch.float64,
        layers: Sequence[int] = (1, 0, DEPTH - 1),
    ) -> list[Face]:
        """Return a layer in the middle, the first and the last one, from every side that shows something of its own."""
        hosts = [self.host(self.site(i, causal=causal, size=size), settings, dtype=dtype) for i in layers]
        return [face for host in hosts for face in faces_of(host)]

    def every_face(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        size: Size | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> list[Face]:
        """Return the faces without a causal mask and, where these settings know one, with it."""
        faces = self.faces(settings, size=size, dtype=dtype)
        if self.variant.causal != "no":
            with contextlib.suppress(ValueError):
                faces += self.faces(settings, causal=True, size=size, dtype=dtype)
        return faces

    @property
    def shape(self) -> VisionTransformerShape:
        """Sizes of the smallest network that the variant accepts."""
        side = max(3, math.isqrt(self.variant.minimum_tokens - 1) + 1)
        shape = VisionTransformerShape(
            image=2 * side, channels=2, patch=2, dim=5 * self.heads, depth=3, heads=self.heads, classes=7
        )
        return carrying(shape, self.variant, self.settings)

    def network(self, seed: int = 0, *, moved: float = 0.0, dtype: torch.dtype = torch.float32) -> VisionTransformer:
        """Build a network in eval mode and calibrate it; `moved` moves the cores' learned tensors before."""
        shape = self.shape
        measured = {name: torch.full((shape.depth, shape.heads), 0.8) for name in self.variant.measured}
        model = build(self.core, self.settings, shape, seed, measured)
        move((p for name, p in model.named_parameters() if ".core." in name), moved)
        calibrate(model, self.samples(), Draw(0, "check", "calibrate"))
        return model.to(dtype).eval()

    def samples(self, count: int = ROWS, seed: int = 0) -> Samples:
        """Return random labelled images."""
        shape, generator = self.shape, torch.Generator().manual_seed(seed)
        pixels = torch.rand(count, shape.channels, shape.image, shape.image, generator=generator)
        labels = torch.randint(shape.classes, (count,), generator=generator)
        return Samples(pixels, labels, tuple(f"check-{row}" for row in range(count)))

    def noise(self, model: VisionTransformer, samples: Samples, *, training: bool = False) -> dict[str, Tensor]:
        """Draw what a network asks for."""
        return drawn(model.noise(), samples.ids, Draw(0, "check", "check"), training=training)
