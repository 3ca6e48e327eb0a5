"""One look at a model: how far each sample is from being fooled, and which way is uphill.

A stochastic model is looked at several times, each pass with fresh noise, and the expectation over the noise is
climbed: of the cross-entropy where log-odds are asked for, formed from logarithms so that nothing vanishes however sure
the model is.
"""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..draw import Draw
from ..guard import NoGradient, check_logits, checked_gradient
from ..samples import Samples, Target
from .objective import Objective, log_mean_cross_entropy, log_odds

SMALLEST_BATCH = 16
"""Fewer rows take another path through matrix products and change the last bits: up to 15 with two classes."""


class View(NamedTuple):
    """What an attack learns about some images from one look at the model."""

    value: Float[Tensor, " batch"]
    """Of the objective; over several passes its mean, or for log-odds the logarithm of the mean cross-entropy."""
    fooled: Bool[Tensor, " batch"]
    """Whether another class has the largest logit, on the first pass."""
    gradient: Float[Tensor, "batch channel height width"] | None
    """Of the value in the pixels; None where it was not asked for."""
    loss: Float[Tensor, " batch"]
    """Rises with the mean cross-entropy of the labels, whatever is climbed: by it points are compared."""
    logits: Float[Tensor, "batch class"]
    """Logits, the mean over the passes."""


class Look:
    """The model as a search sees it: each pass takes the next of its own streams; small batches are filled up."""

    def __init__(self, target: Target, draw: Draw, passes: int = 1) -> None:
        self.target = target
        self.passes = passes
        self.noise = draw.named("model")
        self.taken = 0

    @property
    def deterministic(self) -> bool:
        """Whether the same pixels always give the same logits."""
        return self.target.deterministic

    def __call__(self, samples: Samples, *, steepest: bool = False, objective: Objective = log_odds) -> View:
        """Look at some images; `steepest` asks for the gradient.

        Logits of any precision are compared in float32. Raises ArithmeticError where they are not finite, ValueError
        where they have the wrong shape.
        """
        count = len(samples.ids)
        filled = samples.rows([*range(count), *[0] * (SMALLEST_BATCH - count)]) if count < SMALLEST_BATCH else samples
        views = []
        for _ in range(self.passes):
            views.append(self._pass(filled, count, steepest, objective))
            self.taken += 1
        return views[0] if len(views) == 1 else _expectation(views, of_odds=objective is log_odds)

    def _pass(self, filled: Samples, count: int, steepest: bool, objective: Objective) -> View:
        # What was made in a caller's inference mode has no gradient and can be kept for none: hence the copies.
        with torch.inference_mode(False), torch.set_grad_enabled(steepest):
            pixels = filled.pixels.detach().clone().requires_grad_(steepest)
            labels = filled.labels.to(torch.long, copy=True)
            logits = self.target(pixels, filled.ids, self.noise.at(self.taken))
            check_logits(logits, labels)
            logits, labels = logits[:count].float(), labels[:count]
            value = objective(logits, labels)
            gradient = gradient_of(value, pixels)[:count] if steepest else None
        value, logits = value.detach(), logits.detach()
        loss = value if objective is log_odds else log_odds(logits, labels)
        return View(value, logits.argmax(1) != labels, gradient, loss, logits)


def gradient_of(value: Float[Tensor, " batch"], pixels: Tensor) -> Tensor:
    """Return the gradient of a sum of values in the pixels, 0 where no path leads there, with a `NoGradient` warning.

    Raises ArithmeticError where it is not finite.
    """
    found = slope(value, pixels)
    if found is None:
        warnings.warn(NoGradient(), stacklevel=2)
        return torch.zeros_like(pixels)
    return found


def slope(value: Float[Tensor, " batch"], pixels: Tensor, *, kept: bool = False) -> Tensor | None:
    """Return the gradient of a sum of values in the pixels, None where no path leads there; `kept` keeps the graph.

    Raises ArithmeticError where it is not finite.
    """
    if not value.requires_grad:
        return None
    found = torch.autograd.grad(value.sum(), pixels, retain_graph=kept, allow_unused=True)[0]
    return None if found is None else checked_gradient(found)


def _expectation(views: list[View], *, of_odds: bool) -> View:
    """Return the expectation over passes.

    The gradient of the logarithm of the mean cross-entropy weighs a pass's log-odds by sigmoid(odds) over that mean.
    """
    odds = torch.stack([view.loss for view in views])
    loss = log_mean_cross_entropy(odds)
    values = torch.stack([view.value for view in views])
    value = loss.to(values) if of_odds else values.mean(0)
    logits = torch.stack([view.logits for view in views]).mean(0)
    gradients = [view.gradient for view in views if view.gradient is not None]
    if not gradients:
        return View(value, views[0].fooled, None, loss.to(values), logits)
    weights = F.logsigmoid(odds.double()).sub(loss).exp() if of_odds else torch.ones_like(odds)
    shares = (weights / len(views)).to(gradients[0])[..., None, None, None]
    gradient = torch.stack([w * g for w, g in zip(shares, gradients, strict=True)]).sum(0)
    return View(value, views[0].fooled, gradient, loss.to(values), logits)
