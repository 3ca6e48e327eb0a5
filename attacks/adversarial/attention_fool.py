"""Attention-Fool: all queries are pulled towards the key of one patch, before the softmax hides the way there.

Lovisotto et al. 2022, arXiv:2203.13639. The paper itself could not be read; a summary and two reimplementations were,
and they agree on sections 5 and 6.1: L_kq with smooth maxima over heads and layers is added to the cross-entropy with
weight 1, one patch lies in the top left corner (the place `corner`), and 250 steps, the first of 8/255, shorten along a
cosine; a momentum of 0.9 makes the attack stronger. Here the patch lies by default where the log-odds are steepest, and
`pull` says how it differs from L_kq. L_kq*, which pulls the class token alone, is left out: a model that pools its
patches has no such token.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..draw import Draw
from ..glass import Glass, Inside, attentive
from ..samples import Samples, Target
from ..shift import Shift
from .ball import length
from .insight import insight, seen
from .ladder import Found, Search, laddered
from .look import Look, View
from .patch_place import Tiling, check_counts, check_place, first, place_scores, tiling
from .region import Pixels, Stride, around, check_walk, set_free, untouched, wander


class Plan(NamedTuple):
    """Where an attack may go and what pulls it."""

    tiles: Tiling
    """How patches tile the images."""
    glass: Glass
    """The model."""
    norm: str
    """`patches` or `linf`."""
    place: str
    """How the patches that draw attention are chosen."""
    layer: int
    """Whose attention ranks them."""
    steps: int
    """Number of gradient steps."""
    relative_step: float
    """Length of the first step over the range of a pixel, or over eps."""
    momentum: float
    """Share of the last direction in the next."""
    attention_weight: float
    """Weight of the pull."""


def attention_fool(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    norm: str,
    patch: int,
    place: str,
    layer: int,
    steps: int,
    relative_step: float,
    momentum: float,
    attention_weight: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each severity, images that fool the model, in a few patches or in an L-inf ball.

    Climbs the log-odds of the true labels plus, weighted, `pull` towards the keys of the chosen patches. With the norm
    `patches` the severities count the patches whose pixels are free in [0, 1], and attention is drawn to these; with
    `linf` they are eps, all pixels move, and attention is drawn to one patch. Patches are the model's own, of `patch`
    pixels a side, and chosen as `place` says (see `place_scores`). Steps follow the sign of a momentum of normalised
    gradients and shorten along a cosine. Images that the model already gets wrong come back unchanged.

    Raises ValueError for an unknown norm or place, severities that do not rise or are no numbers of patches, patches
    that are not the model's, a model that shows no attention, and counts below 1; ArithmeticError where the logits are
    not finite. Lovisotto et al. 2022, arXiv:2203.13639, sections 5 and 6.1.
    """
    if norm not in ("patches", "linf"):
        raise ValueError(f"unknown norm {norm!r} for attention_fool; choose from patches, linf")
    if not 0 <= momentum < 1:
        raise ValueError(f"a momentum is at least 0 and below 1, got {momentum}")
    check_place(place)
    check_walk(steps, relative_step, restarts)
    victim = attentive(target, samples, draw, "attention_fool")
    tiles = tiling(samples, patch, victim)
    if norm == "patches":
        check_counts(severities, tiles)
    plan = Plan(tiles, victim, norm, place, layer, steps, relative_step, momentum, attention_weight)
    return laddered(samples, severities, draw, target, [_search(plan, restart) for restart in range(restarts)], passes)


def preference(
    logits: Float[Tensor, "batch head query key"], keys: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch head"]:
    """Return by how much the logits of some keys exceed those of all, the mean over queries; in float64.

    Equation 5's (1 / n) sum_j B_ji, for one key i, less the mean over all i.

    >>> preference(torch.tensor([[[[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]]]), torch.tensor([[2]])).tolist()
    [[1.0]]
    """
    index = keys[:, None, None].expand(-1, *logits.shape[1:3], -1)
    chosen = logits.gather(3, index).mean((2, 3), dtype=torch.float64)
    # A mean with a wider type reads the logits as they are; a wider copy of them would be the largest tensor here.
    return chosen - logits.mean((2, 3), dtype=torch.float64)


def spread(logits: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head"]:
    """Return the standard deviation of each query's logits, its root mean square over queries, 1 where it is 0."""
    found = logits.double().var(3, correction=0).mean(2).sqrt()
    return torch.where(found > 0, found, 1.0)


def pull(inside: Inside, keys: Int[Tensor, "batch chosen"], units: Float[Tensor, "batch place"]) -> Tensor:
    """Return the smooth maximum, ln sum exp, over all heads and layers of `preference` over its unit, `[batch]`.

    The smooth maximum over layers of those over heads is that over both. Layers that show no logits are left out.
    `units` holds a number for each of the other heads, layer by layer.

    The paper divides queries and keys by their mean lengths, head by head, so that all heads have their say. Logits do
    not show those, and not all attention has them: the unit here is the spread of a head's logits on the clean image.
    The paper's L_kq also lacks the mean that `preference` takes off. Without it a model could be pulled along a number
    that all logits of a query share, which moves no attention and depends on how the model writes its logits down.
    """
    return (torch.cat([preference(logits, keys) for logits in _shown(inside)], 1) / units).logsumexp(1)


def gliding(shape: torch.Size, like: Tensor, reach: float, plan: Plan) -> Stride:
    """Return steps along the sign of a momentum of gradients of unit length, which shorten along a cosine."""
    memory = torch.zeros(shape, dtype=like.dtype, device=like.device)

    def stride(step: int, rows: Tensor, gradient: Pixels) -> Pixels:
        memory[rows] = plan.momentum * memory[rows] + (1 - plan.momentum) * gradient / length(gradient)
        share = (1 + math.cos(math.pi * step / plan.steps)) / 2
        return plan.relative_step * reach * share * memory[rows].sign()

    return stride


def _search(plan: Plan, restart: int) -> Search:
    def search(samples: Samples, severity: float, draw: Draw, look: Look) -> Found:
        if not severity:
            return untouched(samples)
        again, in_patches = draw.at(restart), plan.norm == "patches"
        scores = place_scores(plan.place, samples, again, look, plan.tiles, plan.glass, plan.layer)
        chosen = first(scores, int(severity) if in_patches else 1)
        clean = samples.pixels
        region = set_free(clean, plan.tiles.spread(chosen)) if in_patches else around(clean, severity)
        free, keys = region.free, chosen + plan.glass.prefix_tokens
        units = seen(look, plan.glass, samples, _spreads)

        def eye(left: Samples, rows: Tensor) -> View:
            view, (towards,) = insight(look, plan.glass, left, lambda inside: [pull(inside, keys[rows], units[rows])])
            assert view.gradient is not None
            return view._replace(gradient=(view.gradient + plan.attention_weight * towards) * free[rows])

        stride = gliding(clean.shape, clean, 1.0 if in_patches else severity, plan)
        return wander(samples, region, region.start(samples, again), plan.steps, look, eye, stride)

    return search


def _spreads(inside: Inside) -> Tensor:
    return torch.cat([spread(logits) for logits in _shown(inside)], 1)


def _shown(inside: Inside) -> list[Tensor]:
    return [logits for logits in inside.attention if logits is not None]


ATTENTION_FOOL = Shift(
    name="attention_fool",
    apply=attention_fool,
    family="adversarial",
    source="Lovisotto et al. 2022, arXiv:2203.13639, sections 5 and 6.1, told by reimplementations; pull: this project",
    version=1,
    summary="Pulls all queries towards the key of one patch while it fools the model.",
    severities=("1",),
    unit="patches, or eps (pixels)",
    ladder=True,
    needs_target=True,
    norm="patches",
    knowledge="white_box",
    requires="attention_logits",
    settings={
        "norm": "patches",
        "patch": 2,
        "place": "saliency",
        "layer": -1,
        "steps": 250,
        "relative_step": 0.0314,
        "momentum": 0.9,
        "attention_weight": 1.0,
        "restarts": 1,
        "passes": 8,
    },
    choices={"norm": ("patches", "linf"), "place": ("saliency", "attention", "random", "corner")},
)
