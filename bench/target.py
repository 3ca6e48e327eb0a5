"""A trained model as attacks and judges see it: frozen, in pixels, the same bits for a sample in any batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..models.network import Network, Tap
from .noise import drawn

SMALLEST_BATCH = 8
"""Matrix products of fewer rows take another path and differ in the last bits, so smaller batches are padded."""
JUDGE_PASSES = 50
"""Fresh passes on which a stochastic model's outcome is judged."""


COUPLING_TOLERANCE = 1e-4
"""Largest change of a logit, relative to the largest one, when only the other samples of the batch change."""


class ModelTarget:
    """A model with frozen parameters in eval mode; hooks are off unless a tap is given."""

    def __init__(self, model: Network, weights: str = "", facts: Mapping[str, Any] | None = None) -> None:
        self.weights = weights
        self.facts = dict(facts or {})
        self.model = model.eval().requires_grad_(False)
        self.noise = tuple(noise for noise in model.noise() if noise.when == "always")
        self.deterministic = not self.noise
        self.device = next(model.parameters()).device

    def coupling(self, samples: Samples) -> float:
        """Return by how much the logits of some samples move, relative to the largest, when their companions change."""
        rows, draw = len(samples.ids) // 3, Draw(0, "coupling", "judge")
        first, second, third = (samples.rows(range(i * rows, (i + 1) * rows)) for i in range(3))
        with torch.no_grad():
            alike = [
                self(torch.cat([first.pixels, other.pixels]), (*first.ids, *other.ids), draw)[:rows]
                for other in (second, third)
            ]
        return float((alike[0] - alike[1]).abs().max() / alike[0].abs().max().clamp_min(1e-12))

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw, tap: Tap | None = None) -> Tensor:
        """Return logits; noise, where the model wants it, comes from `draw` by sample."""
        rows = len(pixels)
        if rows < SMALLEST_BATCH:
            missing = SMALLEST_BATCH - rows
            pixels = torch.cat([pixels, pixels[-1:].expand(missing, *pixels.shape[1:])])
            ids = [*ids, *[ids[-1]] * missing]
            inner = tap
            if inner is not None:

                def tap(point: str, layer: int, tokens: Tensor) -> None:
                    inner(point, layer, tokens[:rows])

        noise = drawn(self.noise, ids, draw, self.device) if self.noise else None
        logits: Tensor = self.model(pixels, noise, tap)
        return logits[:rows]
