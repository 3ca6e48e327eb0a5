"""One training loop for all variants: the same data order, schedule and noise whatever attention the network carries.

AdamW (arXiv:1711.05101) with a linear warm-up and a cosine decay to zero, on label-smoothed cross-entropy. Everything
random is a function of the training seed, the epoch and the sample; the global generator is neither read nor moved.
"""

import hashlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.draw import Draw
from ..attacks.samples import Samples
from ..models.vit import VisionTransformer
from .noise import drawn

CALIBRATION_SIZE = 256
"""Number of training samples on which frozen quantities are measured."""


def calibration_samples(train: Samples) -> Samples:
    """Return the 256 training samples whose ids hash lowest, in that order; all of them where there are fewer.

    A function of the ids alone, so every variant and every seed calibrates on the same samples.
    """
    digests = [hashlib.sha256(f"calibration\0{sample}".encode()).digest() for sample in train.ids]
    return train.rows(sorted(range(len(digests)), key=digests.__getitem__)[:CALIBRATION_SIZE])


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which one epoch visits the samples: a permutation given by the seed and the epoch alone."""
    digest = hashlib.sha256(f"order\0{seed}\0{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(samples, generator=generator)


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
    model: VisionTransformer,
    train: Samples,
    seed: int,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    label_smoothing: float,
    clip: float,
) -> dict[str, float]:
    """Train a network in place and leave it in eval mode; return the facts `epochs`, `steps` and `final_loss`.

    `warmup` is the share of all steps over which the learning rate rises, `clip` the largest gradient norm (0: none).
    `final_loss` is the mean loss of the last epoch. Cores with frozen quantities calibrate before the first epoch and
    after each. Raises FloatingPointError where the loss or a parameter stops being finite, naming epoch and step.
    """
    device = next(model.parameters()).device
    steps_an_epoch = math.ceil(len(train.ids) / batch)
    steps = epochs * steps_an_epoch
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
        for samples in batches(train, order(len(train.ids), seed, epoch), steps_an_epoch):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * learning_rate_factor(step, rising, steps)
            noise = drawn(model.noise(), samples.ids, draw.at(epoch), device, training=True)
            logits = model(samples.pixels.to(device), noise=noise)
            loss = F.cross_entropy(logits, samples.labels.to(device), label_smoothing=label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the training loss is {value} in epoch {epoch}, step {step}; lower learning_rate"
                )
            torch.autograd.backward(loss)
            if clip > 0:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            total += value * len(samples.ids)
        calibrate(model, calibration, draw.at(epoch + 1)._replace(purpose="calibrate"))
    model.eval()
    if not all(bool(p.isfinite().all()) for p in parameters):
        raise FloatingPointError(
            f"a parameter is not finite after epoch {epochs - 1}, step {step - 1}; lower learning_rate"
        )
    return {"epochs": float(epochs), "steps": float(step), "final_loss": total / len(train.ids)}


def batches(train: Samples, visits: Tensor, count: int) -> Iterator[Samples]:
    """Cut one epoch into `count` batches whose sizes differ by one sample at most."""
    for rows in visits.tensor_split(count):
        yield train.rows(rows)


@torch.no_grad()
def calibrate(model: VisionTransformer, calibration: Samples, draw: Draw) -> None:
    """Let the cores that have frozen quantities measure them, layer by layer, in eval mode; the others do nothing."""
    if not model.calibrates:
        return
    model.eval()
    device = next(model.parameters()).device
    noise = drawn(model.noise(), calibration.ids, draw, device)
    model(calibration.pixels.to(device), noise=noise, calibrating=True)
