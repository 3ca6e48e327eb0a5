"""A small network trained on digits within seconds, plainly or against a gradient step, and 500 digits it never saw."""

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attnbench.attacks.samples import Samples

TESTED = 500
"""The last digits of the file: other writers than the first ones."""
BATCH = 64
RATE = 2e-3
STEP = 1.25
"""Length of the step of adversarial training over its eps; Wong et al. 2020, arXiv:2001.03994."""


class Training(NamedTuple):
    """How a network is trained, and the balls within which a fifth to four fifths of the samples then stand."""

    epochs: int
    eps: float
    """Of the steps it is trained against, L-inf; 0 for none."""
    balls: dict[str, float]
    """By the name of the norm."""


TRAININGS = {
    "plain": Training(12, 0.0, {"linf": 0.1, "l2": 0.5}),
    "adversarial": Training(12, 0.1, {"linf": 0.15, "l2": 0.65}),
}


def digits() -> tuple[Tensor, Tensor]:
    """Return all images `[1797, 1, 8, 8]`, in [0, 1], and their classes."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def held_out(network: nn.Module, count: int = TESTED) -> Samples:
    """Return those of the last digits that the network gets right: the others need no attack."""
    pixels, labels = (part[-count:] for part in digits())
    right = (network(pixels).argmax(1) == labels).nonzero()[:, 0]
    return Samples(pixels, labels, tuple(f"digit-{i}" for i in range(count))).rows(right)


def untrained(seed: int) -> nn.Sequential:
    """Return two convolutions and two dense layers, drawn from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def trained(training: Training, seed: int) -> nn.Sequential:
    """Return a network in eval mode, its parameters frozen."""
    network, generator = untrained(seed), torch.Generator().manual_seed(seed)
    pixels, labels = (part[:-TESTED] for part in digits())
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for _ in range(training.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            shown = harder(network, pixels[rows], labels[rows], training.eps, generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(shown), labels[rows]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def harder(network: nn.Module, clean: Tensor, labels: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return the images after one step of the gradient's signs from a random point of the ball."""
    if not eps:
        return clean
    begun = (clean + eps * (2 * torch.rand(clean.shape, generator=generator) - 1)).clamp(0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(network(begun), labels), begun)
    delta = begun.detach() - clean + STEP * eps * slope.sign()
    return (clean + delta.clamp(-eps, eps)).clamp(0, 1)
