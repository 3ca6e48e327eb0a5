"""One look inside a model: the way uphill of the log-odds and of what its attention does, from one pass forward."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..glass import Glass, Inside
from ..guard import check_logits
from ..samples import Samples
from .ladder import where
from .look import SMALLEST_BATCH, Look, View, slope
from .objective import log_mean_cross_entropy, log_odds

Terms = Callable[[Inside], Sequence[Tensor]]
"""Called with what a pass shows of the samples, returns one number a sample for each term."""


class Insight(NamedTuple):
    """What an attack learns from one look inside."""

    view: View
    """As a plain look shows it: the gradient is that of the log-odds."""
    further: tuple[Float[Tensor, "batch channel height width"], ...]
    """The gradient of each further term; over several passes the mean."""


class Pass(NamedTuple):
    """What one pass showed."""

    logits: Float[Tensor, "batch class"]
    """The model's answer."""
    odds: Float[Tensor, " batch"]
    """Its log-odds."""
    gradients: list[Tensor]
    """That of the log-odds, then those of the further terms."""


def insight(look: Look, target: Glass, samples: Samples, terms: Terms) -> Insight:
    """Look inside a model, in the streams and with the passes of a plain look.

    A deterministic model's sample is fooled where a plain look agrees: the pass that shows the attention may round
    differently. Raises as a plain look does.
    """
    passes = []
    for _ in range(look.passes):
        passes.append(_pass(look, target, samples, terms))
        look.taken += 1
    fooled = passes[0].logits.argmax(1) != samples.labels
    if look.deterministic and fooled.any():
        claimed = where(fooled)
        fooled[claimed] = look(samples.rows(claimed)).fooled
    loss, shares = _expectation(torch.stack([one.odds for one in passes]))
    logits = torch.stack([one.logits for one in passes]).mean(0)
    gradient = sum_of(
        [share[:, None, None, None] * one.gradients[0] for share, one in zip(shares, passes, strict=True)]
    )
    further = zip(*(one.gradients[1:] for one in passes), strict=True)
    return Insight(View(loss, fooled, gradient, loss, logits), tuple(sum_of(term) / len(passes) for term in further))


def seen(look: Look, target: Glass, samples: Samples, read: Callable[[Inside], Tensor]) -> Tensor:
    """Return what is read off a look inside, one row a sample; over several passes the mean."""
    found = []
    with torch.no_grad():
        for _ in range(look.passes):
            found.append(read(_inside(look, target, filled(samples), len(samples.ids))))
            look.taken += 1
    return sum_of(found) / len(found)


def filled(samples: Samples) -> Samples:
    """Return at least as many samples as leave the last bits alone, the first of them repeated."""
    count = len(samples.ids)
    return samples.rows([*range(count), *[0] * (SMALLEST_BATCH - count)]) if count < SMALLEST_BATCH else samples


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of some tensors of one shape, added in their order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _inside(look: Look, target: Glass, full: Samples, count: int) -> Inside:
    """Return what the next pass shows of the first `count` samples."""
    shown = target.inside(full.pixels, full.ids, look.noise.at(look.taken))
    check_logits(shown.logits.detach(), full.labels)
    return Inside(shown.logits[:count], tuple(None if part is None else part[:count] for part in shown.attention))


def _pass(look: Look, target: Glass, samples: Samples, terms: Terms) -> Pass:
    full, count = filled(samples), len(samples.ids)
    with torch.enable_grad():
        pixels = full.pixels.detach().clone().requires_grad_()
        shown = _inside(look, target, full._replace(pixels=pixels), count)
        odds = log_odds(shown.logits, samples.labels)
        gradients = _gradients([odds, *terms(shown)], pixels)
    return Pass(shown.logits.detach(), odds.detach(), [gradient[:count] for gradient in gradients])


def _gradients(values: Sequence[Tensor], pixels: Tensor) -> list[Tensor]:
    """Return the gradient of each value in the pixels, 0 where no path leads there; the last one frees the graph."""
    last = len(values) - 1
    slopes = [slope(value, pixels, kept=i < last) for i, value in enumerate(values)]
    return [torch.zeros_like(pixels) if found is None else found for found in slopes]


def _expectation(odds: Float[Tensor, "passes batch"]) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the mean cross-entropy and the weight of each pass's log-odds in its gradient."""
    if len(odds) == 1:
        return odds[0], torch.ones_like(odds)
    loss = log_mean_cross_entropy(odds)
    return loss.to(odds), F.logsigmoid(odds.double()).sub(loss).exp().div(len(odds)).to(odds)
