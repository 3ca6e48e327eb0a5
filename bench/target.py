"""A trained model as attacks and judges see it: frozen, in pixels, the same bits for a sample in any batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attacks.adversarial.look import SMALLEST_BATCH
from ..attacks.draw import Draw
from ..attacks.glass import Inside
from ..attacks.samples import Samples
from ..models.attention import HasLogits
from ..models.network import Network, Steer, Tap
from ..models.sight import logits_of, sight
from .noise import drawn

COUPLING_TOLERANCE = 1e-4
"""Largest change of a logit, relative to the largest one, when only the other samples of the batch change."""


class ModelTarget:
    """A model with frozen parameters in eval mode; hooks are off unless a tap is given. It is a `Glass`."""

    def __init__(
        self,
        model: Network,
        weights: str = "",
        facts: Mapping[str, Any] | None = None,
        opened: "ModelTarget | None" = None,
    ) -> None:
        self.weights = weights
        self.facts = dict(facts or {})
        self.model = model.eval().requires_grad_(False)
        self.noise = tuple(noise for noise in model.noise() if noise.when == "always")
        self.deterministic = not self.noise
        self.device = next(model.parameters()).device
        self.opened = opened
        """The same function with every gradient path open; None where the model cuts none."""
        self.alone = False
        """Whether samples pass one by one, because those of a batch would mix."""

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.model.sites)

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches."""
        return self.model.sites[0].prefix_tokens if self.model.sites else 0

    @property
    def std(self) -> tuple[float, ...]:
        """Divisor of each channel inside the network; AttributeError where it does not show one."""
        return self.model.divisors

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; (0, 0) where the network shows none."""
        found = self.model.sites[0].grid if self.model.sites else None
        return found or (0, 0)

    def coupling(self, samples: Samples) -> float:
        """Return by how much the logits of some samples move, relative to the largest, when their companions change."""
        rows, draw = len(samples.ids) // 3, Draw(0, "coupling", "judge")
        first, second, third = (samples.rows(range(i * rows, (i + 1) * rows)) for i in range(3))
        with torch.no_grad():
            alike = [
                self._answer(torch.cat([first.pixels, other.pixels]), (*first.ids, *other.ids), draw)[:rows]
                for other in (second, third)
            ]
        return float((alike[0] - alike[1]).abs().max() / alike[0].abs().max().clamp_min(1e-12))

    def separate(self, coupled: bool) -> None:
        """Let samples pass one by one, or in batches, in this target and in its twin."""
        self.alone = coupled
        if self.opened is not None:
            self.opened.alone = coupled

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw, tap: Tap | None = None) -> Tensor:
        """Return logits; noise, where the model wants it, comes from `draw` by sample."""
        return self._answer(pixels, ids, draw, tap)

    def steered(
        self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int, delta: Tensor, tap: Tap | None = None
    ) -> Tensor:
        """Return the logits with `delta`, `[batch, token, dim]`, added to the tokens that block `layer` gets."""
        return self._answer(pixels, ids, draw, tap, (layer, delta))

    def _answer(
        self,
        pixels: Tensor,
        ids: Sequence[str],
        draw: Draw,
        tap: Tap | None = None,
        moved: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        rows = len(pixels)
        if self.alone and rows > 1:
            return self._one_by_one(pixels, ids, draw, tap, moved)
        missing = 0 if self.alone else max(SMALLEST_BATCH - rows, 0)
        ids, inner = [*ids, *[ids[-1]] * missing], tap
        if missing and inner is not None:

            def tap(point: str, layer: int, tokens: Tensor) -> None:
                inner(point, layer, tokens[:rows])

        steer = None
        if moved is not None:
            at, delta = moved[0], _filled(moved[1], missing)

            def steer(layer: int, tokens: Tensor) -> Tensor:
                return tokens + delta if layer == at else tokens

        return self._through(_filled(pixels, missing), ids, draw, tap, steer)[:rows]

    def _one_by_one(
        self,
        pixels: Tensor,
        ids: Sequence[str],
        draw: Draw,
        tap: Tap | None,
        moved: tuple[int, Tensor] | None,
    ) -> Tensor:
        shown: dict[tuple[str, int], list[Tensor]] = {}

        def keep(point: str, layer: int, tokens: Tensor) -> None:
            shown.setdefault((point, layer), []).append(tokens)

        parts = []
        for row in (slice(i, i + 1) for i in range(len(pixels))):
            one = None if moved is None else (moved[0], moved[1][row])
            parts.append(self._answer(pixels[row], ids[row], draw, None if tap is None else keep, one))
        for (point, layer), tokens in shown.items():
            if tap is not None:
                tap(point, layer, torch.cat(tokens))
        return torch.cat(parts)

    def inside(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Inside:
        """Return the logits and the attention's logits of each layer, None where a core has none."""
        if self.alone and len(pixels) > 1:
            each = [self.inside(pixels[i : i + 1], ids[i : i + 1], draw) for i in range(len(pixels))]
            layers = zip(*(one.attention for one in each), strict=True)
            maps = (None if layer[0] is None else torch.cat([m for m in layer if m is not None]) for layer in layers)
            return Inside(torch.cat([one.logits for one in each]), tuple(maps))
        logits, places = sight(self.model, pixels, self._noise(ids, draw))
        cores = zip(self.model.attentions(), places, strict=True)
        return Inside(logits, tuple(logits_of(core, at) if isinstance(core, HasLogits) else None for core, at in cores))

    def stream(self, pixels: Tensor, ids: Sequence[str], draw: Draw, layer: int) -> Tensor:
        """Return the tokens on their way to block `layer`, prefix tokens first. Raises IndexError without it."""
        if not 0 <= layer < self.layers:
            raise IndexError(f"there is no block {layer} to look into; the network shows {self.layers} of them")
        found: list[Tensor] = []

        def keep(at: int, tokens: Tensor) -> Tensor:
            if at == layer:
                found.append(tokens)
            return tokens

        for row in range(len(pixels)) if self.alone else (slice(None),):
            rows = slice(row, row + 1) if isinstance(row, int) else row
            self._through(pixels[rows], ids[rows], draw, None, keep)
        return torch.cat(found)

    def _noise(self, ids: Sequence[str], draw: Draw) -> dict[str, Tensor] | None:
        return drawn(self.noise, ids, draw, self.device) if self.noise else None

    def _through(self, pixels: Tensor, ids: Sequence[str], draw: Draw, tap: Tap | None, steer: Steer | None) -> Tensor:
        before, self.model.steer = self.model.steer, steer
        try:
            logits: Tensor = self.model(pixels, self._noise(ids, draw), tap)
        finally:
            self.model.steer = before
        return logits


def _filled(rows: Tensor, missing: int) -> Tensor:
    """Return some rows and the last one again as often as rows are missing."""
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
