"""One attention as a function of everything that it may read, so that each of its dependences can be tried."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...attacks.draw import Draw
from ...models.attention import QKV, Attention, Calibrates, Context, Core, DrawsNoise, Merges, Projects
from ...models.site import Site
from ..noise import drawn

BATCH = 2


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one attention reads; every leaf has its samples on the first axis and its tokens on the last but one."""

    leaves: Mapping[str, Tensor]
    """By name: `q`, `k`, `v`, `x`, `residual`, `first.v`, `previous.v`, ..."""
    mask: Bool[Tensor, "batch token"] | None = None
    """True where a token is real."""
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    """What the core declared, by its own names."""

    def having(self, leaves: Mapping[str, Tensor]) -> "Inputs":
        """Return the same with some leaves replaced."""
        return replace(self, leaves={**self.leaves, **leaves})

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> "Inputs":
        """Return the same with every leaf changed."""
        return replace(self, leaves={name: change(name, t) for name, t in self.leaves.items()})

    def rows(self, index: list[int]) -> "Inputs":
        """Return some samples, in the order asked for."""
        return Inputs(
            {name: t[index] for name, t in self.leaves.items()},
            None if self.mask is None else self.mask[index],
            {name: t[index] for name, t in self.noise.items()},
        )

    def requiring_grad(self) -> "Inputs":
        """Return copies that gradients can be taken by."""
        return self.changed(lambda name, t: t.detach().clone().requires_grad_())


@dataclass(frozen=True, slots=True)
class Face:
    """One attention, seen from its queries, keys and values, or as the whole layer with its projections."""

    host: Attention
    """The layer."""
    whole: bool
    """Whether it is seen with the host's projections: the way to see a core that projects or merges by itself."""

    @property
    def site(self) -> Site:
        """Where it sits."""
        return self.host.site

    @property
    def core(self) -> nn.Module:
        """The core."""
        return self.host.core

    @property
    def name(self) -> str:
        """What to call it in a message."""
        kind = "causal layer" if self.site.causal else "layer"
        return f"{'whole ' if self.whole else ''}{kind} {self.site.layer}"

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what the core learns."""
        return dict(self.core.named_parameters())

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape that the output must have."""
        site = self.site
        return (batch, site.tokens, site.dim) if self.whole else (batch, site.heads, site.tokens, site.head_dim)

    def __call__(self, given: Inputs) -> Tensor:
        """Return `[batch, head, token, head_dim]`, or `[batch, token, dim]` of the whole layer."""
        leaves = given.leaves
        if self.whole:
            first, previous = (self.host.project(leaves[n]) if n in leaves else None for n in ("first", "previous"))
            y, _ = self.host(leaves["x"], leaves["residual"], given.mask, first, previous, given.noise)
            return cast(Tensor, y)
        return cast(Core, self.core)(leaves["q"], leaves["k"], leaves["v"], self.context(given))

    def context(self, given: Inputs) -> Context:
        """Return what the core may read beside queries, keys and values."""
        leaves = given.leaves
        first, previous = (
            QKV(*(leaves[f"{n}.{part}"] for part in "qkv")) if f"{n}.v" in leaves else None
            for n in ("first", "previous")
        )
        return Context(leaves["x"], leaves["residual"], given.mask, first, previous, given.noise)

    def inputs(self, seed: int = 0, *, batch: int = BATCH, mask: bool = False, repeat: int = 0) -> Inputs:
        """Draw standard normal inputs of the host's dtype and the noise of one pass; `mask` hides a third of them."""
        generator = torch.Generator().manual_seed(seed)
        site, dtype = self.site, self.host.out.weight.dtype

        def normal(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, generator=generator, dtype=torch.float64).to(dtype)

        streams = ("x", "residual", "first", "previous") if site.layer else ("x", "residual")
        leaves = {name: normal(site.tokens, site.dim) for name in streams}
        if not self.whole:
            leaves = {**self._projected(leaves, normal), **{name: leaves[name] for name in ("x", "residual")}}
        real = torch.ones(batch, site.tokens, dtype=torch.bool)
        for sample in range(batch):
            real[sample, 2 + sample % 3 :: 3] = False
        return Inputs(leaves, real if mask else None, self.noise(batch, repeat))

    def _projected(self, streams: Mapping[str, Tensor], normal: Callable[..., Tensor]) -> dict[str, Tensor]:
        """Draw queries, keys and values, or let a core that projects by itself make them: only it knows their shape."""
        found: dict[str, Tensor] = {}
        for stream, tokens in streams.items():
            if stream == "residual":
                continue
            if isinstance(self.core, Projects):
                with torch.no_grad():
                    parts = self.host.project(tokens)
            else:
                size = (self.site.heads, self.site.tokens, self.site.head_dim)
                parts = QKV(normal(*size), normal(*size), normal(*size))
            found |= {part if stream == "x" else f"{stream}.{part}": t for part, t in zip("qkv", parts, strict=True)}
        return found

    def noise(self, batch: int, repeat: int) -> dict[str, Tensor]:
        """Draw what the core declared, as the workbench does."""
        if not isinstance(self.core, DrawsNoise):
            return {}
        ids = [str(sample) for sample in range(batch)]
        return drawn(self.core.noise, ids, Draw(0, "check", "check", repeat), training=self.core.training)


def faces_of(host: Attention) -> list[Face]:
    """Return the ways to look at a layer: a core that projects by itself is seen whole, one that merges both ways."""
    projects, merges = isinstance(host.core, Projects), isinstance(host.core, Merges)
    return [Face(host, whole) for whole in (False, True) if (projects or merges if whole else not projects)]


def calibrated(face: Face) -> None:
    """Let a core with frozen quantities measure them on inputs of their own."""
    if isinstance(face.core, Calibrates):
        given = face.inputs(99, batch=8)
        with torch.no_grad():
            face.core.calibrate(given.leaves["q"], given.leaves["k"], given.leaves["v"], face.context(given))


def gradients(y: Tensor, given: Inputs, face: Face) -> dict[str, Float[Tensor, "..."]]:
    """Return the gradients of a fixed random combination of the outputs, zero where none flows."""
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(y.dtype)
    wanted = {**given.leaves, **{f"parameter {name}": p for name, p in face.parameters().items()}}
    if not y.requires_grad:
        return {name: torch.zeros_like(t) for name, t in wanted.items()}
    found = torch.autograd.grad((weight * y).sum(), list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wanted.items(), found, strict=True)}


def steepest_leak(
    face: Face, given: Inputs, seen: Callable[[Tensor], Tensor], hidden: Callable[[Tensor], Tensor]
) -> tuple[str, float]:
    """Return by which leaf's hidden part the seen part of the output has the largest gradient, and how large it is."""
    given = given.requiring_grad()
    slopes = gradients(seen(face(given)), given, face)
    sizes = {name: float(hidden(slopes[name]).abs().max()) for name in given.leaves}
    worst = max(sizes, key=sizes.__getitem__)
    return worst, sizes[worst]


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest entry of `a`; infinite where anything is not a number."""
    a, b = a.detach(), b.detach()
    moved = float((a - b).abs().max() / a.abs().max().clamp_min(1e-300))
    return moved if moved == moved else float("inf")
