"""Times PGD beside that of torchattacks on the same networks, and counts what both keep for the backward pass."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...attacks.adversarial.isolation import attack_class, isolated
from ...attacks.adversarial.pgd import PGD
from ...attacks.draw import Draw
from ...attacks.samples import Samples, Target
from ...attacks.shift import severity_value
from .comparison import Comparison, Quantity
from .goal import TORCHATTACKS
from .measurement import Ready, Say, clocked, counted
from .paired_time import LEAST_ROUNDS, Pair
from .saved_memory import saved_memory
from .victim import SEED, Victim

STEPS = 20
"""Gradient steps of both sides."""
DRAW = Draw(SEED, PGD.name, "attack")


class Count:
    """A target that counts how many samples it was asked about, the copies that fill up a small batch left out."""

    deterministic = True

    def __init__(self, target: Target) -> None:
        self.target = target
        self.evaluations = 0

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return the target's logits."""
        self.evaluations += len(set(ids))
        return self.target(pixels, ids, draw)


class Standing(NamedTuple):
    """What one attack of ours did."""

    work: float
    """Evaluations over those of 21 a sample and eps: 20 steps and a last look, none left out."""
    shares: tuple[float, ...]
    """Share of the samples whose labels the network still gives, one an eps."""


def ours(samples: Samples, severities: Sequence[str], target: Target, steps: int = STEPS) -> tuple[Tensor, ...]:
    """Run our PGD up a ladder."""
    found: tuple[Tensor, ...] = PGD.apply(samples, severities, DRAW, target, **{**PGD.settings, "steps": steps})
    return found


def theirs(samples: Samples, severities: Sequence[str], network: nn.Module, steps: int = STEPS) -> list[Tensor]:
    """Run PGD of torchattacks at each eps, with our length of a step."""
    share, found = float(PGD.settings["relative_step"]), []
    for eps in map(severity_value, severities):
        attack = attack_class("PGD")(network, eps=eps, alpha=share * eps, steps=steps)
        found.append(attack(samples.pixels, samples.labels))
    return found


def standing(samples: Samples, severities: Sequence[str], target: Target) -> Standing:
    """Run our PGD once and take note of what it needed and left."""
    counting = Count(target)
    batches = ours(samples, severities, counting)
    work = counting.evaluations / ((STEPS + 1) * len(samples.ids) * len(severities))
    with torch.no_grad():
        right = [target(pixels, samples.ids, DRAW).argmax(1) == samples.labels for pixels in batches]
    return Standing(work, tuple(float(r.double().mean()) for r in right))


def paired(victim: Victim, samples: Samples, quantity: Quantity, severities: Sequence[str], rounds: int) -> Ready:
    """Return our PGD and theirs at some eps, ready to be timed, with what ours needs."""
    once = standing(samples, severities, victim.ours)
    known = Comparison(
        PGD.name,
        TORCHATTACKS,
        quantity,
        victim.tokens,
        severity=",".join(severities),
        work=once.work,
        standing=once.shares,
    )
    calls = partial(ours, samples, severities, victim.ours), partial(theirs, samples, severities, victim.theirs)
    return Ready(known, Pair(*calls), rounds)


def kept(victim: Victim) -> Comparison:
    """Compare the bytes that one gradient of the whole batch keeps for its backward pass, the weights left out."""
    eps = victim.rungs[:1]
    networks = victim.ours.model, victim.theirs
    calls: tuple[Callable[[], object], ...] = (
        partial(ours, victim.answered(), eps, victim.ours, steps=1),
        partial(theirs, victim.answered(), eps, victim.theirs, steps=1),
    )
    apart = [[*network.parameters(), *network.buffers()] for network in networks]
    bytes_ = [saved_memory(call, tensors) for call, tensors in zip(calls, apart, strict=True)]
    return counted(Comparison(PGD.name, TORCHATTACKS, "saved memory", victim.tokens, severity=eps[0]), *bytes_)


class Attacked(NamedTuple):
    """What was found on some networks."""

    found: list[Comparison]
    """Times, then memory."""
    networks: dict[int, str]
    """What each network is, by its number of tokens."""


def attacks(makers: Sequence[Callable[[], Victim]], rounds: int, say: Say) -> Attacked:
    """Compare PGD with that of torchattacks on each victim: alone at three eps, up ladders, and in memory.

    All pairs are timed in one run of rounds; ladders in the fewest that give an interval, whatever `rounds` says. The
    global generator, which torchattacks draws from, is put back.
    """
    ready: list[Ready] = []
    memory: list[Comparison] = []
    networks: dict[int, str] = {}
    with isolated(SEED):
        for number, maker in enumerate(makers):
            say(f"network {number + 1} of {len(makers)}: training and counting")
            victim = maker()
            networks[victim.tokens] = f"{victim.name}, {len(victim.samples.ids)} images"
            memory.append(kept(victim))
            ready += [paired(victim, victim.answered(), "attack", (eps,), rounds) for eps in victim.rungs]
            ready += [paired(victim, victim.samples, "ladder", ladder, LEAST_ROUNDS) for ladder in victim.ladders]
        return Attacked([*clocked(ready, "attacks", say), *memory], networks)
