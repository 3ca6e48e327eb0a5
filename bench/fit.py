"""One training loop for all variants: the same data order, schedule and noise whatever attention the network carries.

AdamW (arXiv:1711.05101) with a linear warm-up and a cosine decay to zero, on the label-smoothed cross-entropy of mixed
pairs (mixup, arXiv:1710.09412). Everything random is a function of the training seed, the epoch and the sample; the
global generator is neither read nor moved.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..models.network import Network
from .noise import drawn

CALIBRATION_SIZE = 256
"""Number of training samples on which frozen quantities are measured."""


def calibration_samples(train: Samples) -> Samples:
    """Return the 256 training samples whose ids hash lowest, in that order; all of them where there are fewer.

    A function of the ids alone, so every variant and every seed calibrates on the same samples.
    """
    digests = [hashlib.sha256(f"calibration\0{sample}".encode()).digest() for sample in train.ids]
    return train.rows(sorted(range(len(digests)), key=digests.__getitem__)[:CALIBRATION_SIZE])


class Batch(NamedTuple):
    """What one step learns from."""

    pixels: Float[Tensor, "batch channel height width"]
    """Mixed inputs."""
    targets: Float[Tensor, "batch class"]
    """Mixed classes, each row adding up to 1."""
    ids: tuple[str, ...]
    """The samples with the larger share, by which noise is drawn."""


def generator_of(what: str, seed: int, epoch: int) -> torch.Generator:
    """Return a generator that depends on its purpose, the training seed and the epoch alone."""
    digest = hashlib.sha256(f"{what}\0{seed}\0{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which one epoch visits the samples."""
    return torch.randperm(samples, generator=generator_of("order", seed, epoch))


def batches(train: Samples, seed: int, epoch: int, *, count: int, classes: int, mixup: float) -> Iterator[Batch]:
    """Cut one epoch into `count` batches whose sizes differ by one at most, and mix each sample with the one before it.

    A sample keeps a share of itself that is uniform on [1 - mixup, 1], its own in each epoch. With `mixup` 0.5 the
    larger share is distributed as in arXiv:1710.09412 with alpha 1, which draws one share for a whole batch.
    """
    own = 1 - mixup * torch.rand(len(train.ids), generator=generator_of("mixup", seed, epoch))
    for rows in order(len(train.ids), seed, epoch).tensor_split(count):
        samples, share = train.rows(rows), own[rows]
        targets = F.one_hot(samples.labels, classes).to(share.dtype)
        pixels = torch.lerp(samples.pixels.roll(1, 0), samples.pixels, share[:, None, None, None])
        yield Batch(pixels, torch.lerp(targets.roll(1, 0), targets, share[:, None]), samples.ids)


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: a linear rise over `warmup` steps, then half a cosine.

    >>> [learning_rate_factor(step, 2, 6) for step in (0, 1, 2, 4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return the optimiser's groups: weights of linear and convolution layers decay, all other parameters do not.

    So biases, norms, the position table and what a variant adds outside such layers (temperatures, gates) stay free.
    """
    decayed = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m.weight.requires_grad]
    chosen = {id(p) for p in decayed}
    free = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class Schedule(NamedTuple):
    """How long and how fast a network learns."""

    epochs: int
    """Visits of every sample."""
    batch: int
    """Largest number of samples in one step."""
    learning_rate: float
    """Its peak."""
    weight_decay: float
    """Of the weights of linear and convolution layers."""
    warmup: float
    """Share of all steps over which the learning rate rises."""
    clip: float
    """Largest gradient norm; 0 for none."""


class Descent:
    """A network's way down its loss, one step at a time: AdamW with its schedule, and where it has come to."""

    def __init__(self, model: nn.Module, schedule: Schedule, steps: int) -> None:
        self.schedule = schedule
        self.steps = steps
        self.rising = round(schedule.warmup * steps)
        groups = parameter_groups(model, schedule.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)
        self.parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.taken = 0

    def step(self, loss: Float[Tensor, ""], epoch: int) -> float:
        """Step down a loss and return it; raises FloatingPointError, naming epoch and step, where it is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            cause = (
                "lower learning_rate" if self.taken else "the untrained network already answers so: look at its core"
            )
            raise FloatingPointError(f"the training loss is {value} in epoch {epoch}, step {self.taken}; {cause}")
        for group in self.optimiser.param_groups:
            factor = learning_rate_factor(self.taken, self.rising, self.steps)
            group["lr"] = self.schedule.learning_rate * factor
        torch.autograd.backward(loss)
        if self.schedule.clip > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.taken += 1
        return value

    def finish(self) -> None:
        """Raise FloatingPointError, naming epoch and step, where the last step left a parameter that is not finite."""
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            where = f"epoch {self.schedule.epochs - 1}, step {self.taken - 1}"
            raise FloatingPointError(f"a parameter is not finite after {where}; lower learning_rate")


Answer = Callable[[Tensor], Tensor]
"""The network as one step meets it: pixels to logits, in training mode, with the batch's noise."""
Loss = Callable[[Answer, Batch, Draw], Tensor]
"""Called with the network, a batch and the epoch's streams; returns the mean over the batch, to be descended."""


def learn(
    model: Network, train: Samples, seed: int, schedule: Schedule, loss: Loss, *, mixup: float = 0.0
) -> dict[str, float]:
    """Train a network in place and leave it in eval mode; return the facts `epochs`, `steps` and `final_loss`.

    `mixup` is the largest share that a sample gives to another one (0: none). `final_loss` is the mean loss of the last
    epoch. The noise that the network asks for is drawn once a batch, so a loss that looks several times sees one
    function. Cores with frozen quantities calibrate before the first epoch and after each. Raises FloatingPointError
    where the loss or a parameter stops being finite, naming epoch and step.
    """
    device = next(model.parameters()).device
    count = math.ceil(len(train.ids) / schedule.batch)
    descent = Descent(model, schedule, schedule.epochs * count)
    calibration = calibration_samples(train)
    draw = Draw(noise_seed=seed, shift="train", purpose="train")
    total = 0.0
    calibrate(model, calibration, draw._replace(purpose="calibrate"))
    for epoch in range(schedule.epochs):
        model.train()
        total = 0.0
        for pixels, targets, ids in batches(train, seed, epoch, count=count, classes=model.classes, mixup=mixup):
            noise = drawn(model.noise(), ids, draw.at(epoch), device, training=True)
            batch = Batch(pixels.to(device), targets.to(device), ids)
            total += descent.step(loss(partial(model, noise=noise), batch, draw.at(epoch)), epoch) * len(ids)
        calibrate(model, calibration, draw.at(epoch + 1)._replace(purpose="calibrate"))
    model.eval()
    descent.finish()
    return {"epochs": float(schedule.epochs), "steps": float(descent.taken), "final_loss": total / len(train.ids)}


def fit(
    model: Network, train: Samples, seed: int, *, label_smoothing: float, mixup: float, **schedule: Any
) -> dict[str, float]:
    """Train with the label-smoothed cross-entropy of mixed pairs; `schedule` holds the fields of `Schedule`.

    Trains in place, leaves the network in eval mode, returns and raises what `learn` does.
    """

    def loss(answer: Answer, batch: Batch, draw: Draw) -> Tensor:
        return F.cross_entropy(answer(batch.pixels), batch.targets, label_smoothing=label_smoothing)

    return learn(model, train, seed, Schedule(**schedule), loss, mixup=mixup)


@torch.no_grad()
def calibrate(model: Network, calibration: Samples, draw: Draw) -> None:
    """Let the cores that have frozen quantities measure them, layer by layer, in eval mode; the others do nothing."""
    if not model.calibrates:
        return
    model.eval()
    device = next(model.parameters()).device
    noise = drawn(model.noise(), calibration.ids, draw, device)
    model(calibration.pixels.to(device), noise=noise, calibrating=True)
