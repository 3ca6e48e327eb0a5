"""Whether the gradient that autograd returns is the slope of the function: a detached path gives itself away.

Slopes are measured by central differences, (f(x + h d) - f(x - h d)) / 2h, in float64 where the model computes in it.
In float32 rounding spoils small steps and curvature large ones, so a range of steps is tried, and the three
neighbouring steps that agree best say how well the slope is known. A model that rounds inside (half precision,
quantised inputs) has no slope between its steps: there steps are tried that are long against its rounding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..adversarial.look import gradient_of
from ..adversarial.objective import log_odds
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from .fact import Facts, absent, counted
from .flags import ROUNDING, moved
from .trial import Trial

FINE = tuple(2.0**-k for k in range(6, 12))
"""How far the pixel that moves most is moved, falling."""
COARSE = tuple(2.0**-k for k in range(3, 8))
"""The same where rounding hides most slopes from the fine ones."""
DOUBTS = 3.0
"""How many times its doubt a slope may be off."""
SLACK = 0.02
"""Share of the slope, or of the gradient's length where that is larger, that it may be off besides."""

KNOWN = 0.5
"""Share of the slope, or of the gradient's length, from which on an error would be noticed where a slope is known."""

Slopes = Float[Tensor, "direction batch"]


class Measured(NamedTuple):
    """Slopes of the model in some directions."""

    directions: list[Tensor]
    """Which way."""
    slopes: Slopes
    """How steep, in float64."""
    doubts: Slopes
    """How far they may be off."""


def hidden_gradient(trial: Trial, opened: Target | None) -> Facts:
    """Return how many samples' gradient is wrong in most directions, and the median relative error of a slope.

    Directions are random ones, with every pixel moved alike, and the gradient's own. With an opened twin the same is
    said of its gradient, against the same slopes of the model. The images are first drawn in from 0 and 1 by the
    largest step, so that no point leaves the box. Not applicable where rounding hides most slopes from all steps.
    """
    precise = computes_in_double(trial)
    twice = [answer(trial, trial.right) for _ in range(2)]
    if bool((moved(twice[0], twice[1]) > ROUNDING).any()):
        return absent("the same pixels and the same noise give other logits from call to call")
    for steps in (FINE, COARSE):
        right = inner(trial.right, steps[0])
        right = right._replace(pixels=right.pixels.double()) if precise else right
        gradient = slope_source(trial, trial.target, right)
        seen = measured(trial, right, gradient, steps)
        known = noticeable(seen, gradient)
        if 2 * int(known.sum()) > len(right.ids):
            facts = {**judged(seen, gradient), "steps": list(steps), "float64": precise}
            if opened is not None:
                facts["opened"] = judged(seen, slope_source(trial, opened, right))
            return facts
    return absent("the model rounds so much that its slope cannot be measured")


def inner(samples: Samples, step: float) -> Samples:
    """Return images squeezed towards 1/2, so that a step stays in the box."""
    return samples._replace(pixels=step + (1 - 2 * step) * samples.pixels)


def measured(trial: Trial, samples: Samples, gradient: Tensor, steps: Sequence[float]) -> Measured:
    """Measure slopes in random directions and along the gradient."""
    directions = [*random_directions(trial, samples), along(gradient)]
    pairs = [differences(trial, samples, direction, steps) for direction in directions]
    return Measured(directions, torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]))


def computes_in_double(trial: Trial) -> bool:
    """Whether the model takes float64 pixels and answers in float64."""
    some = trial.right._replace(pixels=trial.right.pixels.double())
    try:
        return answer(trial, some).dtype == torch.float64
    except (RuntimeError, TypeError):
        return False


def answer(trial: Trial, samples: Samples) -> Float[Tensor, "batch class"]:
    """Return the logits under the noise of the first pass, as precise as the model gives them."""
    with torch.no_grad():
        logits: Tensor = trial.target(samples.pixels, samples.ids, trial.draw.named("model"))
    return logits


def slope_source(trial: Trial, target: Target, samples: Samples) -> Tensor:
    """Return a model's gradient of the log-odds, in float64, under the noise of the first pass."""
    with torch.enable_grad():
        pixels = samples.pixels.detach().clone().requires_grad_()
        logits = target(pixels, samples.ids, trial.draw.named("model"))
        return gradient_of(log_odds(logits, samples.labels), pixels).double()


def random_directions(trial: Trial, samples: Samples) -> list[Tensor]:
    """Return directions that move every pixel by 1 up or down."""
    shape = samples.pixels.shape[1:]
    streams = (trial.draw.named("direction").at(i) for i in range(trial.settings.directions))
    return [torch.where(s.uniform(samples.ids, shape) < 0.5, -1.0, 1.0).to(samples.pixels) for s in streams]


def along(gradient: Float[Tensor, "batch channel height width"]) -> Tensor:
    """Return the gradient scaled so that the pixel that moves most moves by 1."""
    largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    return gradient / largest[:, None, None, None]


def differences(trial: Trial, samples: Samples, direction: Tensor, steps: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return each sample's slope and how well it is known, in float64.

    The slope is that of the middle one of three neighbouring steps. Its doubt is their spread, or with fine steps how
    far the smallest one's slope lies from it where that is more: near a kink, large ones may agree with each other
    alone.
    """
    found = []
    for step in steps:
        offset = (step * direction).to(samples.pixels)
        up, down = (
            log_odds(answer(trial, samples._replace(pixels=pixels)).double(), samples.labels)
            for pixels in (samples.pixels + offset, samples.pixels - offset)
        )
        found.append((up - down) / (2 * step))
    triples = torch.stack(found).unfold(0, 3, 1)
    spreads = triples.amax(2) - triples.amin(2)
    best = spreads.argmin(0, keepdim=True)
    slope, doubt = triples[:, :, 1].gather(0, best)[0], spreads.gather(0, best)[0]
    return slope, torch.maximum(doubt, (slope - found[-1]).abs()) if steps is FINE else doubt


def promised(seen: Measured, gradient: Tensor) -> tuple[Slopes, Slopes]:
    """Return the slopes that a gradient promises, and what their errors are measured against."""
    own = torch.stack([ordered_sum((gradient * d).flatten(1)) for d in seen.directions])
    length = ordered_sum(gradient.flatten(1) ** 2).sqrt()
    return own, torch.maximum(torch.maximum(seen.slopes.abs(), own.abs()), length)


def noticeable(seen: Measured, gradient: Tensor) -> Bool[Tensor, " batch"]:
    """Return which samples' slopes are known well enough in most directions, those of a gradient of 0 among them."""
    _, scale = promised(seen, gradient)
    return 2 * (DOUBTS * seen.doubts <= KNOWN * scale).sum(0) > len(seen.directions)


def judged(seen: Measured, gradient: Tensor) -> Facts:
    """Compare measured slopes with those that a gradient promises."""
    own, scale = promised(seen, gradient)
    off = (seen.slopes - own).abs()
    wrong: Bool[Tensor, "direction batch"] = off > DOUBTS * seen.doubts + SLACK * scale
    relative = off / scale.clamp_min(torch.finfo(torch.float32).tiny)
    return {**counted(2 * wrong.sum(0) > len(seen.directions)), "median_error": float(relative.flatten().median())}
