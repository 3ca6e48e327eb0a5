"""Adversarial training by one step: each sample is learned at the end of one signed step from a random start."""

from typing import Any

from ...attacks.samples import Samples
from ...models.network import Network
from ..adversary import adversary, training_accuracy, worst_case
from ..fit import Schedule, learn
from ..recipe import Recipe


def fit(
    model: Network, train: Samples, seed: int, *, eps: str, relative_step: float, mixup: float, **schedule: Any
) -> dict[str, float]:
    """Train in place as algorithm 3 of arXiv:2001.03994 does; return the facts of `learn` and `training_accuracy`."""
    foe = adversary(eps, 1, relative_step)
    facts = learn(model, train, seed, Schedule(**schedule), worst_case(foe), mixup=mixup)
    return {**facts, **training_accuracy(model, train, seed, foe.eps)}


FGSM_RS = Recipe(
    name="fgsm_rs",
    fit=fit,
    version=2,
    source="Wong et al. 2020, arXiv:2001.03994, algorithm 3; schedule chosen for softmax attention on held-out blocks",
    summary="One signed step of 1.25 eps from a uniform start.",
    settings={
        "eps": "0.1",
        "relative_step": 1.25,
        "epochs": 30,
        "batch": 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "mixup": 0.2,
        "clip": 1.0,
    },
)
