"""Adversarial training by many steps: each sample is learned where projected gradient descent leads it."""

from typing import Any

from ...attacks.samples import Samples
from ...models.network import Network
from ..adversary import adversary, training_accuracy, worst_case
from ..fit import Schedule, learn
from ..recipe import Recipe


def fit(
    model: Network,
    train: Samples,
    seed: int,
    *,
    eps: str,
    steps: int,
    relative_step: float,
    mixup: float,
    **schedule: Any,
) -> dict[str, float]:
    """Train in place on the saddle point of arXiv:1706.06083, (2.1); return what `fgsm_rs` returns."""
    foe = adversary(eps, steps, relative_step)
    facts = learn(model, train, seed, Schedule(**schedule), worst_case(foe), mixup=mixup)
    return {**facts, **training_accuracy(model, train, seed, foe.eps)}


PGD_AT = Recipe(
    name="pgd_at",
    fit=fit,
    version=2,
    source="Madry et al. 2018, arXiv:1706.06083, (2.1); schedule chosen for softmax attention on held-out blocks",
    summary="Projected gradient descent from a uniform start.",
    settings={
        "eps": "0.1",
        "steps": 5,
        "relative_step": 0.4,
        "epochs": 30,
        "batch": 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "mixup": 0.2,
        "clip": 1.0,
    },
)
