"""Adversarial patches: a few patches of an image may become anything, and the rest stays as it is."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..draw import Draw
from ..glass import Glass, attentive
from ..samples import Samples, Target
from ..shift import Shift
from .ladder import Found, Search, laddered
from .look import Look, View
from .patch_place import Tiling, check_counts, check_place, first, place_scores, tiling
from .region import check_walk, set_free, signed, untouched, wander


class Plan(NamedTuple):
    """How the patches are chosen and filled."""

    tiles: Tiling
    """How patches tile the images."""
    glass: Glass | None
    """The model, where its attention is asked."""
    place: str
    """How patches are ranked."""
    layer: int
    """Whose attention ranks them."""
    steps: int
    """Number of gradient steps."""
    relative_step: float
    """Length of one step over the range of a pixel."""


def adversarial_patch(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    patch: int,
    place: str,
    layer: int,
    steps: int,
    relative_step: float,
    restarts: int,
    passes: int,
) -> tuple[Tensor, ...]:
    """Return, for each number of patches, images that fool the model and differ from the clean ones in no more patches.

    The pixels of the chosen patches start anywhere in [0, 1] and climb the log-odds of the true labels by signed steps.
    Patches are squares of `patch` pixels, chosen on the clean image as `place` says (see `place_scores`); k patches are
    the first k, so fewer lie inside more and what fools a deterministic model is kept. `layer` is for the place
    `attention`, as in `layer_logits`. Images that the model already gets wrong come back unchanged; `passes` is for
    stochastic models (see `ladder`).

    Gu et al. choose the patch by saliency and run PGD; their number of steps could not be read, so the defaults here
    are this project's. Raises ValueError for severities that are no rising numbers of patches, patches that do not tile
    the images, an unknown place, the place `attention` with a model that shows none, and counts below 1;
    ArithmeticError where the logits are not finite. Gu et al. 2022, arXiv:2111.10659.
    """
    check_place(place)
    check_walk(steps, relative_step, restarts)
    through = attentive(target, samples, draw, "place=attention") if place == "attention" else None
    tiles = tiling(samples, patch, through)
    check_counts(severities, tiles)
    plan = Plan(tiles, through, place, layer, steps, relative_step)
    return laddered(samples, severities, draw, target, [_search(plan, restart) for restart in range(restarts)], passes)


def _search(plan: Plan, restart: int) -> Search:
    def search(samples: Samples, count: float, draw: Draw, look: Look) -> Found:
        if not count:
            return untouched(samples)
        again = draw.at(restart)
        scores = place_scores(plan.place, samples, again, look, plan.tiles, plan.glass, plan.layer)
        region = set_free(samples.pixels, plan.tiles.spread(first(scores, int(count))))

        def eye(left: Samples, rows: Tensor) -> View:
            return look(left, steepest=True)

        begun = region.start(samples, again)
        return wander(samples, region, begun, plan.steps, look, eye, signed(plan.relative_step))

    return search


ADVERSARIAL_PATCH = Shift(
    name="adversarial_patch",
    apply=adversarial_patch,
    family="adversarial",
    source="Gu et al. 2022, arXiv:2111.10659; the number of steps is this project's",
    version=1,
    summary="The pixels of a few patches climb anywhere in [0, 1]; all others stay.",
    severities=("1", "2", "4"),
    unit="patches",
    ladder=True,
    needs_target=True,
    norm="patches",
    knowledge="white_box",
    settings={
        "patch": 2,
        "place": "saliency",
        "layer": -1,
        "steps": 40,
        "relative_step": 0.1,
        "restarts": 1,
        "passes": 8,
    },
    choices={"place": ("saliency", "attention", "random", "corner")},
    requires_where={"place=attention": "attention_logits"},
)
