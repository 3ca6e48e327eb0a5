"""TRADES: right on the samples, and alike on their neighbours, with a weight that trades the one for the other."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...attacks.draw import Draw
from ...attacks.samples import Samples
from ...models.network import Network
from ..adversary import LINF, Adversary, adversary, training_accuracy
from ..fit import Answer, Batch, Loss, Schedule, learn
from ..recipe import Recipe

START = 1e-3
"""Standard deviation of the start; at the image itself the divergence has no gradient."""


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    """Return KL(clean || other) of the classes' distributions, summed over the batch, from two sets of logits."""
    return F.kl_div(other.log_softmax(1), clean.log_softmax(1), reduction="sum", log_target=True)


def traded(foe: Adversary, beta: float) -> Loss:
    """Return CE(clean) + beta KL(clean || neighbour), the mean over the batch, at neighbours where KL is large."""

    def loss(answer: Answer, batch: Batch, draw: Draw) -> Tensor:
        clean = answer(batch.pixels)
        fixed = clean.detach()
        noise = draw._replace(purpose="attack", name="start").normal(batch.ids, batch.pixels.shape[1:])
        begun = LINF.project(batch.pixels + START * noise.to(batch.pixels), batch.pixels, foe.eps)
        neighbours = foe.climb(batch.pixels, begun, lambda pixels: divergence(fixed, answer(pixels)))
        apart = divergence(clean, answer(neighbours)) / len(batch.ids)
        return F.cross_entropy(clean, batch.targets) + beta * apart

    return loss


def fit(
    model: Network,
    train: Samples,
    seed: int,
    *,
    eps: str,
    steps: int,
    relative_step: float,
    beta: float,
    mixup: float,
    **schedule: Any,
) -> dict[str, float]:
    """Train in place on arXiv:1901.08573, (5); return what `fgsm_rs` returns."""
    foe = adversary(eps, steps, relative_step)
    facts = learn(model, train, seed, Schedule(**schedule), traded(foe, beta), mixup=mixup)
    return {**facts, **training_accuracy(model, train, seed, foe.eps)}


TRADES = Recipe(
    name="trades",
    fit=fit,
    version=2,
    source="Zhang et al. 2019, arXiv:1901.08573, (5); schedule chosen for softmax attention on held-out blocks",
    summary="Cross-entropy on the samples plus 6 times the divergence to their worst neighbours.",
    settings={
        "eps": "0.1",
        "steps": 5,
        "relative_step": 0.4,
        "beta": 6.0,
        "epochs": 30,
        "batch": 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "mixup": 0.2,
        "clip": 1.0,
    },
)
