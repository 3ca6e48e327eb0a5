"""What is gathered at one severity: pixels measured anew, predictions, margins, the values of the metrics."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attacks.adversarial.token_embedding import size
from ..attacks.draw import Draw
from ..attacks.glass import Steered
from ..attacks.samples import JUDGE_PASSES, Samples
from ..metrics.metric import Metric
from ..metrics.observation import Observation
from .ball import Perturbation, merged, perturbation, sizes
from .shifting import Point, answer
from .target import ModelTarget

VALUE = tuple[str, int | None]
"""A metric's name and the layer, None for metrics of outputs."""


class NotANumber(ArithmeticError):
    """The model answered with something that is no number."""


class Rung:
    """What has been gathered at one severity; batches are added one after another."""

    def __init__(self, norm: str, patch: int) -> None:
        self.norm = norm
        self.patch = patch
        self.parts: list[Perturbation] = []
        self.sizes: list[Tensor] = []
        self.pixels = hashlib.sha256()
        self.predictions: list[Tensor] = []
        self.margins: list[Tensor] = []
        self.correct: list[Tensor] = []
        self.correct_first: list[Tensor] = []
        """Over the first half of the passes."""
        self.from_open = 0
        """How many points come from the twin with open gradients."""
        self.values: dict[VALUE, list[Tensor]] = {}

    @property
    def perturbation(self) -> Perturbation:
        """The extremes over all batches."""
        return merged(self.parts)

    def measure(self, samples: Samples, point: Point, target: ModelTarget, draw: Draw) -> bool:
        """Measure how far a batch was moved; return whether every number is one."""
        if isinstance(point, Steered):
            found, moved = moved_tokens(samples, point, target, draw)
        else:
            found = perturbation(samples.pixels, point, self.norm, self.patch)
            moved = sizes(samples.pixels, point, self.norm, self.patch)
        self.parts.append(found)
        self.sizes.append(moved.cpu())
        for tensor in (point.pixels, point.delta) if isinstance(point, Steered) else (point,):
            self.pixels.update(tensor.detach().contiguous().cpu().numpy().tobytes())
        return found.finite

    def gather(self, observation: Observation, metrics: Sequence[Metric], chosen: Mapping[str, Tensor]) -> None:
        """Add what was seen of a batch; `chosen` says which rows each metric of tokens is measured on."""
        logits, labels = observation.logits.double(), observation.targets
        self.predictions.append(logits.mean(0).argmax(1))
        others = logits.scatter(2, labels.expand(len(logits), -1)[..., None], -torch.inf).amax(2)
        own = logits.gather(2, labels.expand(len(logits), -1)[..., None])[..., 0]
        self.margins.append((own - others).mean(0))
        right = (logits.argmax(2) == labels).double()
        self.correct.append(right.mean(0))
        self.correct_first.append(right[: max(len(right) // 2, 1)].mean(0))
        for metric in metrics:
            if metric.needs == "outputs":
                self.values.setdefault((metric.name, None), []).append(metric.measure(observation).double().cpu())
            elif metric.needs == "tokens":
                rows = chosen[metric.name]
                for (point, layer), tokens in observation.hidden.items():
                    if point == metric.hook_point:
                        values = torch.full((len(tokens),), torch.nan, dtype=torch.float64)
                        if rows.any():
                            values[rows] = metric.measure(tokens[rows], None).double().cpu()
                        self.values.setdefault((metric.name, layer), []).append(values)

    def facts(self) -> dict[str, Any]:
        """Return what verdicts are derived from."""
        found = self.perturbation
        return {
            "largest_perturbation": found.largest,
            "lowest_pixel": found.lowest,
            "highest_pixel": found.highest,
            "from_open": self.from_open,
            "pixels_sha256": self.pixels.hexdigest(),
        }


def moved_tokens(samples: Samples, point: Steered, target: ModelTarget, draw: Draw) -> tuple[Perturbation, Tensor]:
    """Return how far tokens were moved, over the length of the stream that they were moved in, each token's mean off.

    The images themselves must be as they were.
    """
    with torch.no_grad():
        stream = target.stream(samples.pixels, samples.ids, draw.named("stream"), point.layer)
    wide = point.delta.double()
    moved = wide.flatten(1).norm(dim=1) / size(stream)
    same = perturbation(samples.pixels, point.pixels, "linf")
    finite = bool(torch.isfinite(wide).all()) and same.finite and same.largest == 0
    return Perturbation(float(moved.max()), same.lowest, same.highest, finite), moved


def judged(target: ModelTarget, samples: Samples, point: Point, draw: Draw, points: set[str]) -> Observation:
    """Pass some inputs through the model, hooks on in the first pass only. Raises NotANumber."""
    hidden: dict[tuple[str, int], Tensor] = {}

    def tap(at: str, layer: int, tokens: Tensor) -> None:
        if at in points:
            hidden[at, layer] = tokens

    passes = 1 if target.deterministic else JUDGE_PASSES
    with torch.no_grad():
        logits = [
            answer(target, point, samples.ids, draw.at(i), tap if points and i == 0 else None) for i in range(passes)
        ]
    observation = Observation(torch.stack(logits), samples.labels, hidden)
    if not torch.isfinite(observation.logits).all():
        raise NotANumber("the model's logits are not finite")
    return observation
