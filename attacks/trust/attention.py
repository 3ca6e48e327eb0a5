"""What goes wrong with attention in particular: samples that see each other, softmax rows that pass no gradient."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..adversarial.look import SMALLEST_BATCH, Look
from ..glass import Glass
from .fact import Facts, absent, counted
from .flags import ROUNDING, moved
from .trial import Trial

SURE = 2.0**-24
"""A weight nearer to 1 than this is 1 in float32, and the others' gradients are lost beside it."""
ALONE = 8
"""Samples that are shown without companions."""


def batch_dependence(trial: Trial) -> Facts:
    """Return how many samples' logits move when their companions change, and how far at most.

    Companions are all the others, then about fifteen others, then, for the first eight samples, copies of the sample
    itself. The noise is that of the sample's own stream each time.
    """
    samples = trial.samples
    count = len(samples.ids)
    twice = [Look(trial.target, trial.draw)(samples).logits for _ in range(2)]
    if bool((moved(twice[0], twice[1]) > ROUNDING).any()):
        return absent("the same batch and the same noise give other logits from call to call")
    change = torch.zeros_like(twice[0][:, 0])
    # Rows that lie far apart become neighbours.
    chunks = max(count // SMALLEST_BATCH, 1)
    groups = [list(range(i, count, chunks)) for i in range(chunks)]
    for group in [*groups, *([i] for i in range(min(ALONE, count)))]:
        seen = Look(trial.target, trial.draw)(samples.rows(group)).logits
        change[group] = torch.maximum(change[group], moved(twice[0][group], seen))
    return {**counted(change > ROUNDING), "largest": float(change.max()), "declared_noise": not trial.deterministic}


def saturated_attention(trial: Trial) -> Facts:
    """Return for how many samples most rows of some layer give all their weight to one key.

    Beside it stand, by layer, the share of such rows and the standard deviation of a row's logits, the mean over rows;
    null for a layer without a softmax. Rows that see one key only do not count.
    """
    target = trial.target
    if not isinstance(target, Glass):
        return absent("the model's attention cannot be seen")
    samples = trial.samples
    parts = [samples.rows(range(i, min(i + 8, len(samples.ids)))) for i in range(0, len(samples.ids), 8)]
    with torch.no_grad():
        seen = [target.inside(part.pixels, part.ids, trial.draw.named("model")).attention for part in parts]
        layers = [
            None if any(part[layer] is None for part in seen) else [rows(part[layer]) for part in seen]
            for layer in range(len(seen[0]))
        ]
    found = [None if layer is None else tuple(torch.cat(part) for part in zip(*layer, strict=True)) for layer in layers]
    known = [layer[0] for layer in found if layer is not None]
    if not known:
        return absent("no layer has a softmax")
    return {
        **counted((torch.stack(known) > 0.5).any(0)),
        "rows": [None if layer is None else float(layer[0].mean()) for layer in found],
        "logit_spread": [None if layer is None else float(layer[1].mean()) for layer in found],
    }


def rows(logits: Float[Tensor, "batch head query key"] | None) -> tuple[Tensor, Tensor]:
    """Return each sample's share of saturated rows, and its rows' mean standard deviation of logits, in float64."""
    assert logits is not None
    wide = logits.double()
    seen: Bool[Tensor, "batch head query key"] = wide > -torch.inf
    keys = seen.sum(3)
    several = keys > 1
    top = wide.masked_fill(~several[..., None], 0.0).softmax(3).amax(3)
    saturated = (1 - top < SURE) & several
    filled = wide.masked_fill(~seen, 0.0)
    mean = filled.sum(3) / keys.clamp_min(1)
    variance = ((filled - mean[..., None]).masked_fill(~seen, 0.0) ** 2).sum(3) / keys.clamp_min(1)
    number = several.flatten(1).sum(1).clamp_min(1)
    spread = (variance.sqrt() * several).flatten(1).sum(1) / number
    return saturated.flatten(1).sum(1) / number, spread
