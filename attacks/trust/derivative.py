"""Whether the gradient that autograd returns is the slope of the function: a detached path gives itself away.

Slopes are measured by central differences, (f(x + h d) - f(x - h d)) / 2h, in float64 where the model computes in it.
In float32 rounding spoils small steps and curvature large ones, so a range of steps is tried, and the three
neighbouring steps that agree best say how well the slope is known.
"""

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

STEPS = tuple(2.0**-k for k in range(6, 12))
"""How far the pixel that moves most is moved, falling."""
DOUBTS = 3.0
"""How many times its doubt a slope may be off."""
SLACK = 0.02
"""Share of the slope, or of the gradient's length where that is larger, that it may be off besides."""

Slopes = Float[Tensor, "direction batch"]


def hidden_gradient(trial: Trial, opened: Target | None) -> Facts:
    """Return how many samples' gradient is wrong in most directions, and the median relative error of a slope.

    Directions are random ones, with every pixel moved alike, and the gradient's own. With an opened twin the same is
    said of its gradient, against the same slopes of the model. The images are first drawn in from 0 and 1 by the
    largest step, so that no point leaves the box.
    """
    right, precise = inner(trial.right), computes_in_double(trial)
    if precise:
        right = right._replace(pixels=right.pixels.double())
    twice = [answer(trial, right) for _ in range(2)]
    if bool((moved(twice[0], twice[1]) > ROUNDING).any()):
        return absent("the same pixels and the same noise give other logits from call to call")
    gradient = slope_source(trial, trial.target, right)
    directions = [*random_directions(trial, right), along(gradient)]
    measured = [differences(trial, right, direction) for direction in directions]
    slopes, doubts = (torch.stack([pair[i] for pair in measured]) for i in range(2))
    found = judged(slopes, doubts, directions, gradient)
    facts = {**found, "steps": list(STEPS), "float64": precise}
    if opened is not None:
        facts["opened"] = judged(slopes, doubts, directions, slope_source(trial, opened, right))
    return facts


def inner(samples: Samples) -> Samples:
    """Return images squeezed towards 1/2, so that the largest step stays in the box."""
    return samples._replace(pixels=STEPS[0] + (1 - 2 * STEPS[0]) * samples.pixels)


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


def differences(trial: Trial, samples: Samples, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's slope and how well it is known, in float64.

    The slope is that of the middle one of three neighbouring steps. Its doubt is their spread, or how far the smallest
    step's slope lies from it where that is more: near a kink, large steps may agree with each other alone.
    """
    found = []
    for step in STEPS:
        offset = (step * direction).to(samples.pixels)
        up, down = (
            log_odds(answer(trial, samples._replace(pixels=pixels)).double(), samples.labels)
            for pixels in (samples.pixels + offset, samples.pixels - offset)
        )
        found.append((up - down) / (2 * step))
    triples = torch.stack(found).unfold(0, 3, 1)
    spreads = triples.amax(2) - triples.amin(2)
    best = spreads.argmin(0, keepdim=True)
    slope = triples[:, :, 1].gather(0, best)[0]
    return slope, torch.maximum(spreads.gather(0, best)[0], (slope - found[-1]).abs())


def judged(slopes: Slopes, doubts: Slopes, directions: list[Tensor], gradient: Tensor) -> Facts:
    """Compare measured slopes with those that a gradient promises."""
    promised = torch.stack([ordered_sum((gradient * d).flatten(1)) for d in directions])
    length = ordered_sum(gradient.flatten(1) ** 2).sqrt()
    scale = torch.maximum(torch.maximum(slopes.abs(), promised.abs()), length)
    off = (slopes - promised).abs()
    wrong: Bool[Tensor, "direction batch"] = off > DOUBTS * doubts + SLACK * scale
    relative = off / scale.clamp_min(torch.finfo(torch.float32).tiny)
    return {**counted(2 * wrong.sum(0) > len(directions)), "median_error": float(relative.flatten().median())}
