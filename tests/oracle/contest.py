"""Two attacks on the same samples: what each breaks, what it costs, and whether ours is worse by more than chance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from attnbench.attacks.samples import Samples

LEVEL = 0.05
"""Chance at which attacks of equal strength are told apart."""

Attack = Callable[[nn.Module, Samples, float, str], Tensor]
"""Called with a network, samples that it gets right, eps and the name of the norm; returns one point for each."""


class Tally(NamedTuple):
    """What an attack does, over all networks that it attacked."""

    broken: Tensor
    """Whether each sample is fooled by a point inside ball and box."""
    looks: int
    """Most passes of a network forward."""
    slopes: int
    """Most passes of a network backward."""

    @property
    def passes(self) -> int:
        return self.looks + self.slopes


class Counted(nn.Module):
    """A network that counts its passes: an upper bound of how often one sample of its only batch is shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.looks, self.slopes = network, 0, 0
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        self.looks += 1
        logits: Tensor = self.network(pixels)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, slope: Tensor) -> None:
        self.slopes += 1


def tally(attack: Attack, networks: Sequence[nn.Module], samples: Sequence[Samples], eps: float, norm: str) -> Tally:
    """Attack each network with its own samples."""
    broken, looks, slopes = [], 0, 0
    for network, some in zip(networks, samples, strict=True):
        counted = Counted(network)
        points = attack(counted, some, eps, norm)
        broken.append(network(points).argmax(1).ne(some.labels) & inside(points, some.pixels, eps, norm))
        looks, slopes = max(looks, counted.looks), max(slopes, counted.slopes)
    return Tally(torch.cat(broken), looks, slopes)


def sizes(points: Tensor, clean: Tensor, norm: str) -> Tensor:
    """Return how large each perturbation is, in float64."""
    delta = (points.double() - clean.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


def inside(points: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """Return which points lie in ball and box, up to the rounding of float32."""
    pixels = points.flatten(1)
    boxed = (pixels.amin(1) >= 0) & (pixels.amax(1) <= 1)
    return boxed & (sizes(points, clean, norm) <= (eps + 2**-23 if norm == "linf" else eps * (1 + 1e-6)))


class Contest(NamedTuple):
    """One of our attacks beside another's."""

    attack: str
    rival: str
    ours: Tally
    theirs: Tally

    @property
    def only_ours(self) -> int:
        return int((self.ours.broken & ~self.theirs.broken).sum())

    @property
    def only_theirs(self) -> int:
        return int((self.theirs.broken & ~self.ours.broken).sum())

    @property
    def chance(self) -> float:
        """McNemar, exact, one side: the chance, were both equally strong, of so many or more that they alone break."""
        apart = self.only_ours + self.only_theirs
        return float(binomtest(self.only_theirs, apart, 0.5, "greater").pvalue) if apart else 1.0

    @property
    def lost(self) -> str:
        """What ours falls short of; empty where it does not."""
        short = {
            "fewer in total": self.only_ours < self.only_theirs,
            f"fewer, p = {self.chance:.3f}": self.chance < LEVEL,
            "more passes": self.ours.passes > self.theirs.passes,
        }
        return ", ".join(reason for reason, holds in short.items() if holds)


def union(fought: Sequence[Contest]) -> Tensor:
    """Return what any attack broke, ours or another's."""
    return torch.stack([side.broken for contest in fought for side in (contest.ours, contest.theirs)]).any(0)


def table(title: str, fought: Sequence[Contest]) -> str:
    """Return a Markdown table: samples broken, with shares of the union, and the cost of each side."""
    whole = int(union(fought).sum())

    def share(side: Tally) -> str:
        count = int(side.broken.sum())
        return f"{count} ({count / whole:.1%})"

    lines = [
        f"{title}: {len(union(fought))} samples attacked, {whole} broken by any attack",
        "",
        "| attack | beside | ours | theirs | only ours | only theirs | p | passes, ours | theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in fought:
        counts = f"{share(one.ours)} | {share(one.theirs)} | {one.only_ours} | {one.only_theirs} | {one.chance:.3f}"
        cost = " | ".join(f"{side.looks} + {side.slopes}" for side in (one.ours, one.theirs))
        lines.append(f"| {one.attack} | {one.rival} | {counts} | {cost} |")
    return "\n".join(lines)
