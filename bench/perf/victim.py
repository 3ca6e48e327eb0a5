"""The networks that attacks are timed on, each twice: as our attacks see it, and as torchattacks does."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ...attacks.adversarial.pgd import PGD
from ...attacks.draw import Draw
from ...attacks.samples import Samples
from ...models.variants.softmax import SOFTMAX
from ...models.vit import VisionTransformer, VisionTransformerShape, build
from ..recipes.standard import STANDARD
from ..target import ModelTarget
from ..tasks.digits import DIGITS, load

SEED = 0
"""Of initial values, of training and of made-up images."""
SAMPLES = 256
"""Digits that are attacked, all in one batch; colour images have four times the tokens and are a fourth as many."""


class Victim(NamedTuple):
    """A network, and images for it."""

    name: str
    """What it is."""
    tokens: int
    """Number of its tokens, by which victims are told apart."""
    ours: ModelTarget
    """The network with its parameters frozen, as every attack of this project sees it."""
    theirs: nn.Module
    """A copy with its parameters open, as training leaves them and torchattacks takes them."""
    samples: Samples
    """Images with their true labels, or with the network's own answers where there are none."""
    rungs: tuple[str, ...]
    """Severities at which about all, about half and none of the network's answers withstand PGD."""
    ladders: tuple[tuple[str, ...], ...] = ()
    """Severities of security curves, for images that have true labels."""

    def answered(self) -> Samples:
        """Return the images with the network's own answers for labels, none of which is wrong from the start."""
        with torch.no_grad():
            logits = self.ours(self.samples.pixels, self.samples.ids, Draw(SEED, "perf", "judge"))
        return self.samples._replace(labels=logits.argmax(1))


def victim(
    name: str,
    network: VisionTransformer,
    samples: Samples,
    rungs: tuple[str, ...],
    ladders: tuple[tuple[str, ...], ...] = (),
) -> Victim:
    """Return a network as both sides see it."""
    theirs = copy.deepcopy(network).eval().requires_grad_()
    tokens = (network.shape.image // network.shape.patch) ** 2
    return Victim(name, tokens, ModelTarget(network), theirs, samples, rungs, ladders)


def trained_on_digits() -> Victim:
    """Return softmax attention after the standard recipe: its accuracy falls from .97 to .2 at .1 and to 0 at .25."""
    split = load(0)
    pixels: Mapping[str, Any] = DIGITS.pixels
    network = build(SOFTMAX.core, {}, VisionTransformerShape(**pixels), SEED)
    STANDARD.fit(network, split.train, SEED, **STANDARD.settings)
    return victim(
        "8 x 8 digits, trained",
        network,
        split.test.rows(range(SAMPLES)),
        rungs=("0.001", "0.07", "0.3"),
        ladders=(("0.05", "0.1", "0.15", "0.2", "0.25", "0.3"), PGD.severities),
    )


def untrained_in_colour() -> Victim:
    """Return softmax attention on 3 x 32 x 32 pixels of noise, with initial values: only its costs mean something."""
    network = build(SOFTMAX.core, {}, VisionTransformerShape(image=32, channels=3, patch=4), SEED).eval()
    count = SAMPLES // 4
    pixels = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
    unnamed = Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(f"noise-{i}" for i in range(count)))
    found = victim("32 x 32 colour noise, untrained", network, unnamed, rungs=("0.0001", "0.005", "0.03"))
    return found._replace(samples=found.answered())


VICTIMS: tuple[Callable[[], Victim], ...] = (trained_on_digits, untrained_in_colour)
"""All of them; the first takes some seconds to train."""
