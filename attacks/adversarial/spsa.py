"""SPSA: the way uphill is guessed from pairs of looks to either side of a point, and walked with Adam; no gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ascent import record
from .ball import BALLS, Ball, Pixels
from .ladder import Found, Search, laddered, where
from .look import Look
from .objective import margin

TOGETHER = 8
"""Pairs that are drawn and looked at in one batch."""
FORGET, FORGET_SQUARES = 0.9, 0.999
"""Adam's decay rates (Kingma & Ba 2015, arXiv:1412.6980)."""


class Probe(NamedTuple):
    """How a slope is guessed and followed."""

    ball: Ball
    """Where the walk may go."""
    steps: int
    """Number of steps."""
    pairs: int
    """Pairs of looks a step."""
    delta: float
    """How far a look lies from the point in every pixel."""
    learning_rate: float
    """Adam's: about the largest change of a pixel in one step."""


def slope(samples: Samples, look: Look, draw: Draw, pairs: int, delta: float) -> Pixels:
    """Return mean_i v_i (f(x + delta v_i) - f(x - delta v_i)) / (2 delta) of the margin f at the samples' pixels x.

    The v_i have independent entries -1 and 1. Looks may leave the ball and, by delta, [0, 1]; they are never returned.
    Added up in the order of the pairs, so that no batch changes a bit. Uesato et al. 2018, algorithm 1.
    """
    pixels, labels, ids = samples
    count, shape = len(ids), pixels.shape[1:]
    total = torch.zeros_like(pixels)
    for first in range(0, pairs, TOGETHER):
        some = min(TOGETHER, pairs - first)
        uniform = draw.named(f"directions.{first}").uniform(ids, (TOGETHER, *shape), pixels.device)[:, :some]
        ways = torch.where(uniform < 0.5, -1.0, 1.0)
        probes = torch.stack([pixels[:, None] + delta * ways, pixels[:, None] - delta * ways])
        shown = Samples(
            probes.flatten(0, 2),
            labels.repeat_interleave(some).repeat(2),
            tuple(i for i in ids for _ in range(some)) * 2,
        )
        ahead, behind = look(shown, objective=margin).value.view(2, count, some)
        rises = (ahead - behind) / (2 * delta)
        for pair in range(some):
            total += rises[:, pair, None, None, None] * ways[:, pair]
    return total / pairs


class Adam:
    """Adam's moments of every pixel, of the samples that still stand."""

    def __init__(self, like: Pixels) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.taken = 0

    def step(self, gradient: Pixels) -> Pixels:
        """Return the next step at learning rate 1.

        A smallest number in place of Adam's 1e-8 keeps steps as long where logits are small.
        """
        self.taken += 1
        self.mean = FORGET * self.mean + (1 - FORGET) * gradient
        self.square = FORGET_SQUARES * self.square + (1 - FORGET_SQUARES) * gradient**2
        root = (self.square / (1 - FORGET_SQUARES**self.taken)).sqrt()
        return self.mean / (1 - FORGET**self.taken) / root.clamp_min(torch.finfo(root.dtype).tiny)

    def keep(self, rows: Tensor) -> None:
        """Forget all samples but some."""
        self.mean, self.square = self.mean[rows], self.square[rows]


def walk(samples: Samples, begun: Pixels, eps: float, draw: Draw, look: Look, probe: Probe) -> Found:
    """Return the first fooling point of each walk, or of a stochastic model the one with the highest loss."""
    kept = Found(
        begun.clone(),
        torch.zeros_like(samples.labels, dtype=torch.bool),
        torch.full_like(begun[:, 0, 0, 0], -torch.inf),
    )
    rows, clean, here, adam = torch.arange(len(samples.ids)), samples, begun, Adam(begun)
    for step in range(probe.steps + 1):
        view = look(clean._replace(pixels=here), objective=margin)
        better = torch.ones_like(view.fooled) if look.deterministic else view.loss > kept.loss[rows]
        record(kept, rows[where(better)], Found(here[better], view.fooled[better], view.loss[better]))
        if look.deterministic and view.fooled.any():
            going = where(~view.fooled)
            rows, clean, here = rows[going], clean.rows(going), here[going]
            adam.keep(going)
        if step == probe.steps or not len(rows):
            break
        found = slope(clean._replace(pixels=here), look, draw.named(f"step.{step}"), probe.pairs, probe.delta)
        here = probe.ball.project(here + probe.learning_rate * adam.step(found), clean.pixels, eps)
    return kept


def spsa_searches(norm: str, steps: int, pairs: int, delta: float, learning_rate: float, restarts: int) -> list[Search]:
    """Return a search for each restart. Raises ValueError for an unknown norm and settings that mean nothing."""
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for spsa; choose from {', '.join(BALLS)}")
    if min(steps, pairs, restarts) < 1 or min(delta, learning_rate) <= 0:
        raise ValueError(
            "steps, pairs and restarts must be at least 1, delta and learning_rate above 0, got "
            f"steps={steps}, pairs={pairs}, restarts={restarts}, delta={delta}, learning_rate={learning_rate}"
        )
    probe = Probe(BALLS[norm], steps, pairs, delta, learning_rate)

    def restarted(restart: int) -> Search:
        def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
            stream = draw.at(restart)
            noise = probe.ball.random_start(stream.named("start"), samples.ids, samples.pixels.shape[1:])
            begun = probe.ball.project(samples.pixels + eps * noise.to(samples.pixels), samples.pixels, eps)
            return walk(samples, begun, eps, stream, look, probe)

        return search

    return [restarted(restart) for restart in range(restarts)]


def spsa(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    steps: int,
    pairs: int,
    delta: float,
    learning_rate: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each eps, images that fool the model where a point of a walk along guessed slopes did.

    Untargeted, on the margin of the logits; each walk starts at a random point of the ball. The slope is guessed at the
    perturbed point; cleverhans' torch version, from which published numbers come, guesses it at clean + clean +- delta.
    A step costs 2 pairs + 1 passes, in batches of 16 times the samples. All looks of one batch share a stochastic
    model's noise, so that its differences measure the slope; the rules of deterministic and of stochastic models stand
    in `ladder`, and `passes` is for the latter.

    Raises ValueError for an unknown norm, severities that do not rise and settings that mean nothing; ArithmeticError
    where the logits are not finite. Uesato et al. 2018, arXiv:1802.05666, algorithm 1.
    """
    searches = spsa_searches(norm, steps, pairs, delta, learning_rate, restarts)
    return laddered(samples, severities, draw, target, searches, passes)


SPSA = Shift(
    name="spsa",
    apply=spsa,
    family="adversarial",
    source="Uesato et al. 2018, arXiv:1802.05666, algorithm 1",
    version=2,
    summary="Steps uphill along slopes guessed from pairs of looks to either side; no gradients.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="black_box",
    settings={
        "norm": "linf",
        "steps": 40,
        "pairs": 128,
        "delta": 0.01,
        "learning_rate": 0.01,
        "restarts": 1,
        "passes": 8,
    },
    choices={"norm": ("linf", "l2")},
)
