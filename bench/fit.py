"""One training loop for all variants: the same data order, schedule and noise whatever attention the network carries.

AdamW (arXiv:1711.05101) with a linear warm-up and a cosine decay to zero, on the label-smoothed cross-entropy of mixed
pairs (mixup, arXiv:1710.09412). Everything random is a function of the training seed, the epoch and the sample; the
global generator is neither read nor moved.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

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


def fit(
    model: Network,
    train: Samples,
    seed: int,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    label_smoothing: float,
    mixup: float,
    clip: float,
) -> dict[str, float]:
    """Train a network in place and leave it in eval mode; return the facts `epochs`, `steps` and `final_loss`.

    `warmup` is the share of all steps over which the learning rate rises, `mixup` the largest share that a sample gives
    to another one (0: none), `clip` the largest gradient norm (0: none).
    `final_loss` is the mean loss of the last epoch. Cores with frozen quantities calibrate before the first epoch and
    after each. Raises FloatingPointError where the loss or a parameter stops being finite, naming epoch and step.
    """
    device = next(model.parameters()).device
    count = math.ceil(len(train.ids) / batch)
    steps = epochs * count
    rising = round(warmup * steps)
    optimiser = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate, fused=True)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    calibration = calibration_samples(train)
    draw = Draw(noise_seed=seed, shift="train", purpose="train")
    step, total = 0, 0.0
    calibrate(model, calibration, draw._replace(purpose="calibrate"))
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for pixels, targets, ids in batches(train, seed, epoch, count=count, classes=model.classes, mixup=mixup):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * learning_rate_factor(step, rising, steps)
            noise = drawn(model.noise(), ids, draw.at(epoch), device, training=True)
            logits = model(pixels.to(device), noise=noise)
            loss = F.cross_entropy(logits, targets.to(device), label_smoothing=label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                cause = "lower learning_rate" if step else "the untrained network already answers so: look at its core"
                raise FloatingPointError(f"the training loss is {value} in epoch {epoch}, step {step}; {cause}")
            torch.autograd.backward(loss)
            if clip > 0:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            total += value * len(ids)
        calibrate(model, calibration, draw.at(epoch + 1)._replace(purpose="calibrate"))
    model.eval()
    if not all(bool(p.isfinite().all()) for p in parameters):
        raise FloatingPointError(
            f"a parameter is not finite after epoch {epochs - 1}, step {step - 1}; lower learning_rate"
        )
    return {"epochs": float(epochs), "steps": float(step), "final_loss": total / len(train.ids)}


@torch.no_grad()
def calibrate(model: Network, calibration: Samples, draw: Draw) -> None:
    """Let the cores that have frozen quantities measure them, layer by layer, in eval mode; the others do nothing."""
    if not model.calibrates:
        return
    model.eval()
    device = next(model.parameters()).device
    noise = drawn(model.noise(), calibration.ids, draw, device)
    model(calibration.pixels.to(device), noise=noise, calibrating=True)
