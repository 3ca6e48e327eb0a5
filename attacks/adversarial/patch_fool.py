"""Patch-Fool: the most attended patch becomes anything that fools the model and draws attention to itself.

Fu et al. 2022, arXiv:2203.08392. The paper itself could not be read. The settings are those of the authors' code,
github.com/GATECH-EIC/Patch-Fool at 9638ec3: the attention of layer index 4 ranks the patches, 250 steps, a weight of
0.002 for the attention, a decay of 0.95 every 10 steps, and a learning rate of 0.22 in units of the deviation of
ImageNet's pixels, 0.226 on average: 0.05. Like that code, and unlike the paper as a summary tells it, attention enters
by its logarithm and not in all layers. Two things are not as there: where several patches are chosen, attention is
drawn to all of them instead of to the first, and a conflict between gradients is taken out whole (see `agreeing`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..draw import Draw
from ..glass import Glass, Inside, attentive
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from ..shift import Shift
from .insight import Terms, insight, sum_of
from .ladder import Found, Search, laddered
from .look import Look, View
from .patch_place import Tiling, attended, check_counts, first, tiling
from .region import Pixels, Stride, check_walk, set_free, untouched, wander

HALVES = (0.9, 0.999)
"""Adam's memory of the gradient and of its square, the defaults of torch that the authors' code keeps."""
PATIENCE = 10
"""Steps after which the length of a step shrinks, as in the authors' code."""


class Plan(NamedTuple):
    """How the patches are chosen and filled."""

    tiles: Tiling
    """How patches tile the images."""
    glass: Glass
    """The model."""
    layer: int
    """Whose attention ranks the patches."""
    steps: int
    """Number of gradient steps."""
    learning_rate: float
    """Length of Adam's first step, in pixels."""
    decay: float
    """By how much steps shrink every ten steps."""
    attention_weight: float
    """Weight of the gradient of the attention in each layer."""


def patch_fool(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    patch: int,
    layer: int,
    steps: int,
    learning_rate: float,
    decay: float,
    attention_weight: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each number of patches, images that fool the model and differ from the clean ones in no more patches.

    Patches, squares of `patch` pixels that have to be the model's own, are ranked by the attention that they get in one
    layer of the clean image: the mean over heads and queries (section 3.3; `layer` counts from 0 and is read as in
    `layer_logits`). Their pixels start anywhere in [0, 1]. Adam climbs the log-odds of the true labels plus, weighted,
    the attention to the chosen patches in each of `drawn_layers`, whose gradient loses what contradicts that of the
    log-odds (`agreeing`; section 3.4). Images that the model already gets wrong come back unchanged.

    Raises ValueError for severities that are no rising numbers of patches, patches that are not the model's, a model
    that shows no attention, and counts below 1; ArithmeticError where the logits are not finite. Fu et al. 2022,
    arXiv:2203.08392.
    """
    check_walk(steps, learning_rate, restarts)
    victim = attentive(target, samples, draw, "patch_fool")
    tiles = tiling(samples, patch, victim)
    check_counts(severities, tiles)
    plan = Plan(tiles, victim, layer, steps, learning_rate, decay, attention_weight)
    return laddered(samples, severities, draw, target, [_search(plan, restart) for restart in range(restarts)], passes)


def drawn_layers(inside: Inside) -> list[Tensor]:
    """Return the logits of the layers in which attention is drawn: from the second to the middle one.

    Those of the authors' code; where none of them shows logits, all that do.
    """
    depth = len(inside.attention)
    chosen = [logits for logits in inside.attention[1 : max(depth // 2, 2)] if logits is not None]
    return chosen or [logits for logits in inside.attention if logits is not None]


def drawn_attention(
    logits: Float[Tensor, "batch head query key"], keys: Int[Tensor, "batch chosen"]
) -> Float[Tensor, " batch"]:
    """Return the mean over queries of ln a, a a query's attention to the chosen keys, the mean over heads.

    At most 0, in float64. From the softmax's logarithm, so that no attention is too small to have a gradient.

    >>> round(float(drawn_attention(torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]]), torch.tensor([[1]])).exp()), 6)
    0.5
    """
    index = keys[:, None, None].expand(-1, *logits.shape[1:3], -1)
    shares = logits.float().log_softmax(-1).gather(3, index).double()
    heads = torch.tensor(float(logits.shape[1]), dtype=torch.float64)
    each = shares.permute(0, 2, 1, 3).flatten(2).logsumexp(2) - heads.log()
    return ordered_sum(each) / each.shape[1]


def agreeing(gradient: Pixels, leading: Pixels) -> Pixels:
    """Return a gradient without its part against the leading one, where the two point apart.

    g - min(g'c, 0) c / |c|^2, image by image. The authors' code divides by |c| instead of its square, which leaves more
    or less than nothing of the conflict. Yu et al. 2020, arXiv:2001.06782, algorithm 1.
    """
    flat, lead = gradient.flatten(1).double(), leading.flatten(1).double()
    size = ordered_sum(lead**2)
    share = ordered_sum(flat * lead).clamp_max(0) / torch.where(size > 0, size, 1.0)
    return (flat - share[:, None] * lead).to(gradient).view_as(gradient)


def adam(shape: torch.Size, like: Tensor, plan: Plan) -> Stride:
    """Return steps of Adam uphill, with a memory for each image, that shrink every ten steps.

    Nothing is added to the root of the mean square, so that no scale of the logits changes a step. Kingma & Ba 2015,
    arXiv:1412.6980, algorithm 1.
    """
    mean, square = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
    tiny = torch.finfo(like.dtype).tiny

    def stride(step: int, rows: Tensor, gradient: Pixels) -> Pixels:
        mean[rows] = HALVES[0] * mean[rows] + (1 - HALVES[0]) * gradient
        square[rows] = HALVES[1] * square[rows] + (1 - HALVES[1]) * gradient * gradient
        steady = mean[rows] / (1 - HALVES[0] ** (step + 1))
        spread = (square[rows] / (1 - HALVES[1] ** (step + 1))).sqrt()
        return plan.learning_rate * plan.decay ** (step // PATIENCE) * steady / spread.clamp_min(tiny)

    return stride


def _search(plan: Plan, restart: int) -> Search:
    def search(samples: Samples, count: float, draw: Draw, look: Look) -> Found:
        if not count:
            return untouched(samples)
        chosen = first(attended(look, plan.glass, samples, plan.layer), int(count))
        region = set_free(samples.pixels, plan.tiles.spread(chosen))
        free, keys = region.free, chosen + plan.glass.prefix_tokens

        def eye(left: Samples, rows: Tensor) -> View:
            view, further = insight(look, plan.glass, left, _terms(keys[rows]))
            assert view.gradient is not None
            leading = view.gradient * free[rows]
            drawn = [plan.attention_weight * agreeing(slope, leading) for slope in further]
            return view._replace(gradient=sum_of([leading, *drawn]))

        begun = region.start(samples, draw.at(restart))
        stride = adam(samples.pixels.shape, samples.pixels, plan)
        return wander(samples, region, begun, plan.steps, look, eye, stride)

    return search


def _terms(keys: Tensor) -> Terms:
    def terms(inside: Inside) -> list[Tensor]:
        return [drawn_attention(logits, keys) for logits in drawn_layers(inside)]

    return terms


PATCH_FOOL = Shift(
    name="patch_fool",
    apply=patch_fool,
    family="adversarial",
    source="Fu et al. 2022, arXiv:2203.08392; settings and layers from github.com/GATECH-EIC/Patch-Fool",
    version=1,
    summary="The most attended patch becomes anything that fools the model and draws attention to itself.",
    severities=("1", "2", "4"),
    unit="patches",
    ladder=True,
    needs_target=True,
    norm="patches",
    knowledge="white_box",
    requires="attention_logits",
    settings={
        "patch": 2,
        "layer": 4,
        "steps": 250,
        "learning_rate": 0.05,
        "decay": 0.95,
        "attention_weight": 0.002,
        "restarts": 1,
        "passes": 8,
    },
)
