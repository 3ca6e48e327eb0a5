"""python examples/calibrate_digits_8.py

Finds the corruption constants of `digits_8`: those that bring plain softmax networks to given accuracies.

Five networks of the standard recipe, one for each fold. Network k never meets the test block of fold k: on the training
side, the 180 samples that follow the test block are held out and measured, and it trains on the rest. Accuracies are
means over the five. Takes about three minutes on one core.
"""

import numpy as np
import torch

from attnbench.attacks.corruption.contrast import channel_mean
from attnbench.attacks.corruption.defocus_blur import average, covered_disk
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.bench.fit import fit
from attnbench.bench.recipes.standard import STANDARD
from attnbench.bench.tasks.digits import DIGITS, load
from attnbench.models.variants.softmax import SOFTMAX
from attnbench.models.vit import VisionTransformer, VisionTransformerShape, build

ACCURACIES = (0.90, 0.80, 0.65, 0.50, 0.35)
"""What levels 1 to 5 should leave."""

MARGIN = 0.02
"""Level 1 costs at least this much, where the clean accuracy leaves no more room above the first of `ACCURACIES`."""

HELD_OUT = 180
"""Samples that each network is measured on."""

NOISE_REPEATS = 5
"""Draws of the noise over which an accuracy is averaged."""

FINE = np.arange(1, 100) / 100
GRIDS = {
    "gaussian_noise": FINE,
    "defocus_blur": np.concatenate([FINE[49:], np.arange(10, 40) / 10]),
    "contrast": FINE[::-1],
}
"""Constants of two significant digits, from harmless to hard."""

Pair = tuple[VisionTransformer, Samples]
"""A network and the samples that it is measured on."""


def trained(fold: int) -> Pair:
    """Return one fold's network and the part of its training side that it has not seen."""
    side = load(fold).train
    count = len(side.ids)
    first = count * fold // (DIGITS.folds - 1)
    held_out = [(first + i) % count for i in range(HELD_OUT)]
    shape = VisionTransformerShape(mean=float(DIGITS.pixels["mean"]), std=float(DIGITS.pixels["std"]))
    model = build(SOFTMAX.core, {}, shape, seed=fold)
    fit(model, side.rows(sorted(set(range(count)) - set(held_out))), fold, **STANDARD.settings)
    return model, side.rows(held_out)


def corrupted(corruption: str, samples: Samples, constant: float, repeat: int) -> torch.Tensor:
    """Return the samples under one corruption with one constant."""
    if corruption == "gaussian_noise":
        noise = Draw(0, "calibration", "shift", repeat).normal(samples.ids, samples.pixels.shape[1:])
        return (samples.pixels + constant * noise).clamp(0, 1)
    if corruption == "defocus_blur":
        return average(samples.pixels, covered_disk(constant))
    mean = channel_mean(samples.pixels)
    return (samples.pixels - mean) * constant + mean


@torch.no_grad()
def accuracy(corruption: str, constant: float, pairs: list[Pair]) -> float:
    """Return the mean accuracy of the networks, each on its own held-out samples."""
    repeats = range(NOISE_REPEATS if corruption == "gaussian_noise" else 1)
    right = [
        (model(corrupted(corruption, held_out, constant, repeat)).argmax(1) == held_out.labels).double().mean().item()
        for model, held_out in pairs
        for repeat in repeats
    ]
    return float(np.mean(right))


def crossing(corruption: str, wanted: float, pairs: list[Pair]) -> tuple[float, float]:
    """Return the constant that comes nearest to an accuracy, by bisection over the grid, and what it reaches."""
    grid = GRIDS[corruption].tolist()
    low, high = 0, len(grid) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accuracy(corruption, grid[middle], pairs) > wanted else (low, middle)
    reached = [(grid[i], accuracy(corruption, grid[i], pairs)) for i in (low, high)]
    return min(reached, key=lambda pair: abs(pair[1] - wanted))


def table() -> list[str]:
    """Train, search and return the lines of the table."""
    pairs = [trained(fold) for fold in range(DIGITS.folds)]
    clean = accuracy("contrast", 1.0, pairs)
    lines = [f"clean: accuracy {clean:.3f}"]
    for corruption in GRIDS:
        for level, aim in enumerate(ACCURACIES, 1):
            wanted = min(aim, clean - MARGIN)
            constant, reached = crossing(corruption, wanted, pairs)
            lines.append(f"{corruption} {level}: {constant:.2g}, accuracy {reached:.3f}, wanted {wanted:.3f}")
    return lines


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    sys.stdout.write("\n".join(table()) + "\n")
