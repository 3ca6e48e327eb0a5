"""One row of the table of variants: some settings, and the textbook form that they must equal, in explicit matrices."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnbench.models import variants
from attnbench.models.attention import QKV, Attention, Calibrates, Context
from attnbench.models.initial_value import draw_initial_values
from attnbench.models.noise import Noise
from attnbench.models.site import Site
from attnbench.models.variant import Setting, Variant

BATCH, HEADS, TOKENS, HEAD_DIM, DIM = 2, 3, 7, 5, 11
SPREAD = torch.tensor([0.3, 1.7, 4.0]).double()
LEAVES = ("q", "k", "v", "x", "residual", "first", "previous")


def modules() -> dict[str, ModuleType]:
    return {
        m.name: importlib.import_module(f"{variants.__name__}.{m.name}")
        for m in pkgutil.iter_modules(variants.__path__)
    }


def declarations() -> dict[str, Variant]:
    return {v.name: v for module in modules().values() for v in vars(module).values() if isinstance(v, Variant)}


class Inputs(NamedTuple):
    """What one layer's attention reads; every tensor of `LEAVES` has its tokens on the last axis but one."""

    q: Tensor
    k: Tensor
    v: Tensor
    x: Tensor
    """Input of the projections, `[batch, token, dim]`."""
    residual: Tensor
    first: Tensor
    """Values of layer 0."""
    previous: Tensor
    """Values of the layer before."""
    noise: Mapping[str, Tensor] = {}
    mask: Tensor | None = None

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in LEAVES}

    def requiring_grad(self) -> "Inputs":
        return self._replace(**{name: t.clone().requires_grad_() for name, t in self.leaves.items()})

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Apply a change of the last axis but one (the tokens) to everything that has tokens."""
        mask = None if self.mask is None else change(self.mask[..., None])[..., 0]
        return self._replace(mask=mask, **{name: change(t) for name, t in self.leaves.items()})

    def row(self, sample: int) -> "Inputs":
        only = slice(sample, sample + 1)
        return self._replace(
            mask=None if self.mask is None else self.mask[only],
            noise={name: t[only] for name, t in self.noise.items()},
            **{name: t[only] for name, t in self.leaves.items()},
        )

    @property
    def ctx(self) -> Context:
        """The context of a core; queries and keys of other layers are NaN, so that reading them shows."""
        nan = torch.full_like(self.v, torch.nan)
        first, previous = QKV(nan, nan, self.first), QKV(nan, nan, self.previous)
        return Context(self.x, self.residual, self.mask, first, previous, self.noise)


def visible(given: Inputs, causal: bool) -> Tensor:
    """[batch, query, key], True where the query may read the key."""
    batch, _, tokens, _ = given.q.shape
    seen = torch.ones(batch, tokens, tokens, dtype=torch.bool)
    if given.mask is not None:
        seen &= given.mask[:, None, :]
    return seen.tril() if causal else seen


def mixing(logits: Tensor, seen: Tensor) -> Tensor:
    """Row-normalised exponentials of the visible logits, [batch, head, query, key]."""
    weights = logits.exp() * seen[:, None]
    return weights / weights.sum(-1, keepdim=True)


Reference = Callable[[Inputs, Tensor, nn.Module], Tensor]
"""Given the inputs, the `[batch, query, key]` visibility and the core (for its learned tensors), the heads' outputs."""
Whole = Callable[[Inputs, Tensor, Attention], Tensor]
"""The same for the whole layer, from `x` and `residual` to `[batch, token, dim]`, through the host's projections."""


@dataclass(frozen=True)
class Case:
    """One variant with some settings, and what it must equal."""

    name: str
    reference: Reference
    settings: Mapping[str, Setting] = field(default_factory=dict)
    whole: Whole | None = None
    """Needed where the core projects or merges in its own way."""
    causal: bool = True
    """Whether these settings run under a causal mask; a core that does not refuses one."""
    masked: bool = True
    """Whether these settings know masked tokens; a core that does not refuses them with a ValueError."""
    heads: int = HEADS
    tokens: int = TOKENS
    head_dim: int = HEAD_DIM
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    set: Callable[[nn.Module], None] | None = None
    """Puts values into the core's frozen tensors; learned ones are drawn at random anyway."""
    size: float = 1
    """Standard deviation of the inputs."""

    @property
    def id(self) -> str:
        chosen = ",".join(f"{k}={v}" for k, v in self.settings.items())
        return f"{self.name}({chosen})" if chosen else self.name

    @property
    def variant(self) -> Variant:
        return declarations()[self.name]

    @property
    def all_settings(self) -> dict[str, Setting]:
        return {**self.variant.settings, **self.settings}

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)

    def site(self, causal: bool = False, layer: int = 1, head_dim: int = 0) -> Site:
        width = head_dim or self.head_dim
        return Site(layer, 3, DIM, self.heads, width, self.tokens, self.prefix_tokens, self.grid, causal, width**-0.5)

    def core(self, causal: bool = False, layer: int = 1, head_dim: int = 0, **over: Setting) -> nn.Module:
        """The core in float64, its learned tensors moved away from their initial values, not yet calibrated."""
        site = self.site(causal, layer, head_dim)
        measured = {"logit_spread": SPREAD} if "logit_spread" in self.variant.measured else {}
        core: nn.Module = self.variant.core(site, **{**self.all_settings, **over}, **measured)
        draw_initial_values(core, 0)
        core = core.double()
        g = torch.Generator().manual_seed(17)
        with torch.no_grad():
            for parameter in core.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
        return core

    def ready(self, causal: bool = False, **over: Setting) -> nn.Module:
        """The core with its frozen quantities set."""
        core = self.core(causal, **over)
        if self.set is not None:
            self.set(core)
        if isinstance(core, Calibrates):
            given = self.calibration()
            core.calibrate(given.q, given.k, given.v, given.ctx)
        return core

    def inputs(
        self, seed: int = 0, *, mask: bool = False, batch: int = BATCH, head_dim: int = 0, size: float | None = None
    ) -> Inputs:
        """Draw what the core reads, its declared noise included; `mask` hides about a third of the tokens."""
        g = torch.Generator().manual_seed(seed)
        spread = self.size if size is None else size

        def normal(*shape: int) -> Tensor:
            return spread * torch.randn(batch, *shape, generator=g, dtype=torch.float64)

        def noise(wanted: Noise) -> Tensor:
            draw = torch.rand if wanted.distribution == "uniform" else torch.randn
            return draw(batch, *wanted.shape, generator=g, dtype=torch.float64)

        q, k, v, first, previous = (normal(self.heads, self.tokens, head_dim or self.head_dim) for _ in range(5))
        x, residual = (normal(self.tokens, DIM) for _ in range(2))
        site = self.site(head_dim=head_dim)
        wanted = getattr(self.variant.core(site, **self.all_settings), "noise", ()) if self.variant.noise else ()
        real = torch.ones(batch, self.tokens, dtype=torch.bool)
        for sample in range(batch):
            real[sample, 2 + sample :: 3] = False
        noises = {n.name: noise(n) for n in wanted}
        return Inputs(q, k, v, x, residual, first, previous, noises, real if mask else None)

    def calibration(self) -> Inputs:
        return self.inputs(seed=99, batch=4)
