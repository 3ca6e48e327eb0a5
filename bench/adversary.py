"""Training against an adversary: the worst neighbours of a batch inside an L-inf ball, and what comes of learning them.

The adversary looks for neighbours of the very function that the step then changes: the network in training mode with
the batch's own noise. The networks have no batch statistics, so the modes differ in noise alone, and a search in eval
mode would climb another loss than the one that is descended. Gradients are taken in the pixels alone, so those that
the optimiser reads are never touched.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks.adversarial.ball import BALLS, Pixels
from ..attacks.draw import Draw
from ..attacks.samples import JUDGE_PASSES, Samples
from ..attacks.shift import severity_value
from ..models.network import Network
from .error import BadInput
from .fit import Answer, Batch, Loss, calibration_samples
from .noise import drawn
from .selection import is_eps

LINF = BALLS["linf"]


class Adversary(NamedTuple):
    """How far the neighbours may lie from an image, and how they are looked for."""

    eps: float
    """Largest change of a pixel."""
    steps: int
    """Gradient steps."""
    relative_step: float
    """Length of one step over eps."""

    def climb(self, clean: Pixels, begun: Pixels, rise: Callable[[Tensor], Tensor]) -> Pixels:
        """Return where signed steps up `rise`, a sum over the images, lead from given points, inside ball and box."""
        here = begun
        for _ in range(self.steps):
            here = here.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(rise(here), here)
            ahead = here.detach() + self.relative_step * self.eps * LINF.normalize(gradient)
            here = LINF.project(ahead, clean, self.eps)
        return here

    def start(self, clean: Pixels, ids: Sequence[str], draw: Draw) -> Pixels:
        """Return a point of each image's ball, uniform and then moved into the box."""
        noise = LINF.random_start(draw.named("start"), ids, clean.shape[1:]).to(clean)
        return LINF.project(clean + self.eps * noise, clean, self.eps)


def adversary(eps: str, steps: int, relative_step: float) -> Adversary:
    """Read a recipe's settings; those that mean nothing raise BadInput."""
    if not is_eps(eps):
        raise BadInput(f"eps is a number from 0 to 1 such as 0.1 or 8/255, got '{eps}'; change the recipe's setting")
    if steps < 1 or relative_step <= 0:
        raise BadInput(
            "steps must be at least 1 and relative_step above 0, "
            f"got steps={steps}, relative_step={relative_step}; change the recipe's settings"
        )
    return Adversary(severity_value(eps), steps, relative_step)


def worst_case(foe: Adversary) -> Loss:
    """Return the cross-entropy of the batch's classes at the neighbours that raise it, from a uniform start."""

    def loss(answer: Answer, batch: Batch, draw: Draw) -> Tensor:
        def rise(pixels: Tensor) -> Tensor:
            return F.cross_entropy(answer(pixels), batch.targets, reduction="sum")

        begun = foe.start(batch.pixels, batch.ids, draw._replace(purpose="attack"))
        return F.cross_entropy(answer(foe.climb(batch.pixels, begun, rise)), batch.targets)

    return loss


def training_accuracy(model: Network, train: Samples, seed: int, eps: float) -> dict[str, float]:
    """Return `train_accuracy` and `train_pgd_accuracy`: which share of samples that it learned a network gets right.

    In [0, 1], on the calibration samples, in eval mode: as they are, and where 20 steps of eps / 4 up the cross-entropy
    lead from a random start. They say nothing about samples that it has not seen. A network that learned to blind its
    adversary instead of to resist it (catastrophic overfitting, arXiv:2001.03994) has a small final loss and almost no
    accuracy under PGD. A stochastic network is climbed on a fresh pass each step, and judged on 50 others.
    """
    model.eval()
    device = next(model.parameters()).device
    samples = calibration_samples(train)
    pixels, labels = samples.pixels.to(device), samples.labels.to(device)
    attack, judge = Draw(seed, "train", "measure"), Draw(seed, "train", "judge")
    noises = [noise for noise in model.noise() if noise.when == "always"]
    steps = count()

    def answer(here: Tensor, draw: Draw) -> Tensor:
        logits: Tensor = model(here, noise=drawn(noises, samples.ids, draw, device))
        return logits

    def rise(here: Tensor) -> Tensor:
        return F.cross_entropy(answer(here, attack.named("model").at(next(steps))), labels, reduction="sum")

    @torch.no_grad()
    def accuracy(here: Tensor) -> float:
        passes = JUDGE_PASSES if noises else 1
        right = [answer(here, judge.at(i)).argmax(1) == labels for i in range(passes)]
        return float(torch.stack(right).double().mean())

    foe = Adversary(eps, steps=20, relative_step=0.25)
    attacked = foe.climb(pixels, foe.start(pixels, samples.ids, attack), rise)
    return {"train_accuracy": accuracy(pixels), "train_pgd_accuracy": accuracy(attacked)}
