"""The host of every core: it owns the projections, so all variants share parameter names and initial values."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .noise import Noise
from .site import Site


class QKV(NamedTuple):
    """Queries, keys and values of one layer, each `[batch, head, token, head_dim]`."""

    q: Tensor
    k: Tensor
    v: Tensor


class Context(NamedTuple):
    """What a core may read beside its own queries, keys and values."""

    x: Float[Tensor, "batch token dim"]
    """Input of the projections, after the norm."""
    residual: Float[Tensor, "batch token dim"]
    """Stream before the norm."""
    mask: Bool[Tensor, "batch token"] | None
    """True where a token is real; None where all are."""
    first: QKV | None
    """Projections of layer 0; None in layer 0."""
    previous: QKV | None
    """Projections of the layer before; None in layer 0."""
    noise: Mapping[str, Tensor]
    """The noise that the core declared, one leading batch axis, by the core's own names."""


class Weights(NamedTuple):
    """The host's projections, for cores that project in their own way; one that the core omits is None."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear


class Core(Protocol):
    """One attention mechanism: maps queries, keys and values of one layer to the heads' outputs."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the outputs, `[batch, head, token, head_dim]` like the inputs."""
        ...


@runtime_checkable
class Projects(Protocol):
    """A core whose projections themselves differ (tied queries and keys, separate sets of keys)."""

    def project(self, x: Tensor, weights: Weights) -> QKV:
        """Map the normed input to queries, keys and values."""
        ...


@runtime_checkable
class Omits(Protocol):
    """A core that does without some of the host's projections, `q`, `k` or `v`; it has to project in its own way."""

    omits: tuple[str, ...]


@runtime_checkable
class Merges(Protocol):
    """A core that acts after the output projection (gates, feature scaling, contrast)."""

    def merge(self, y: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        """Map the projected output `[batch, token, dim]` to what is added to the stream."""
        ...


@runtime_checkable
class DrawsNoise(Protocol):
    """A core that needs randomness: it says how much, and finds it in `ctx.noise`."""

    noise: tuple[Noise, ...]


@runtime_checkable
class Calibrates(Protocol):
    """A core with frozen quantities that are measured on training samples."""

    def calibrate(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> None:
        """Set the frozen quantities from one pass over the calibration samples."""
        ...


@runtime_checkable
class HasLogits(Protocol):
    """A core of the form softmax(logits) v, which can show its logits without their softmax."""

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the logits, `[batch, head, query, key]`, scale included, before any mask."""
        ...


def softmax_attention(
    q: Float[Tensor, "batch head query width"],
    k: Float[Tensor, "batch head key width"],
    v: Float[Tensor, "batch head key value_width"],
    *,
    scale: float,
    causal: bool = False,
    mask: Bool[Tensor, "batch key"] | None = None,
) -> Float[Tensor, "batch head query value_width"]:
    """softmax(scale q k') v in one fused call, O(tokens) memory; the only place that calls the fused kernel.

    The kernel refuses values of another width than the queries and falls back to an N x N matrix without a word, so the
    narrower side is padded with zeros, which changes neither the dot products nor the part of the output that is kept.
    """
    width = v.shape[-1]
    missing = q.shape[-1] - width
    if missing > 0:
        v = F.pad(v, (0, missing))
    elif missing < 0:
        q, k = F.pad(q, (0, -missing)), F.pad(k, (0, -missing))
    visible = None
    if mask is not None:
        visible = mask[:, None, None, :]
        if causal:
            visible = visible & torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            causal = False
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal, scale=scale)
    return y[..., :width] if missing > 0 else y


def attended(
    core: nn.Module, qkv: QKV, ctx: Context, *, heads: int, head_dim: int, calibrating: bool
) -> Float[Tensor, "batch token width"]:
    """Let a core attend, once it has calibrated where that is asked for, and return its heads' outputs side by side.

    Raises ValueError where the core returns another shape than `[batch, head, token, head_dim]`.
    """
    if calibrating and isinstance(core, Calibrates):
        core.calibrate(*qkv, ctx)
    y = cast(Core, core)(*qkv, ctx)
    wanted = (len(ctx.x), heads, ctx.x.shape[1], head_dim)
    if y.shape != wanted:
        raise ValueError(
            f"{type(core).__name__} returned {list(y.shape)}, {list(wanted)} is expected: "
            "[batch, head, token, head_dim]; return a tensor shaped like the queries"
        )
    return y.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention around a core: project, attend, project back.

    Shapes: `[batch, token, dim]` in and out. The projections are three separate layers, so that a variant that has
    fewer or other ones keeps the names and the initial values of the rest.
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, site: Site, core: nn.Module) -> None:
        super().__init__()
        self.site = site
        width = site.heads * site.head_dim
        omitted = core.omits if isinstance(core, Omits) else ()
        if omitted and not isinstance(core, Projects):
            raise TypeError(
                f"{type(core).__name__} omits {', '.join(omitted)}; it needs a method `project` that does without"
            )
        for name in ("q", "k", "v"):
            self.register_module(name, None if name in omitted else nn.Linear(site.dim, width))
        self.out = nn.Linear(width, site.dim)
        self.core = core

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.site.heads, self.site.head_dim).transpose(1, 2)

    def project(self, x: Float[Tensor, "batch token dim"]) -> QKV:
        """Return queries, keys and values by head, as the core wants them."""
        if isinstance(self.core, Projects):
            return self.core.project(x, Weights(self.q, self.k, self.v))
        return QKV(self._heads(self.q(x)), self._heads(self.k(x)), self._heads(self.v(x)))

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        residual: Float[Tensor, "batch token dim"],
        mask: Bool[Tensor, "batch token"] | None,
        first: QKV | None,
        previous: QKV | None,
        noise: Mapping[str, Tensor],
        calibrating: bool = False,
    ) -> tuple[Tensor, QKV]:
        """Attend from the normed input `x`; also return this layer's projections, which later layers may read."""
        qkv = self.project(x)
        ctx = Context(x, residual, mask, first, previous, noise)
        y = attended(self.core, qkv, ctx, heads=self.site.heads, head_dim=self.site.head_dim, calibrating=calibrating)
        y = self.out(y)
        if isinstance(self.core, Merges):
            y = self.core.merge(y, x, residual)
        return y, qkv
