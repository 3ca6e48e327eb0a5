"""Steps uphill on the tokens between two layers: what a model makes of them when no pixel stands in the way."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..draw import Draw
from ..glass import Glass, Steered, glass
from ..guard import check_samples
from ..ordered_sum import ordered_sum
from ..samples import Samples, Target
from ..shift import Shift
from .ball import length, normalize_l2, start_l2
from .insight import filled
from .ladder import Found, Search, laddered
from .look import Look, View
from .region import check_walk, wander

Deltas = Float[Tensor, "batch 1 token dim"]
"""What is added to the tokens, in the shape of an image, since to a walk it is one."""


class TokenBall(NamedTuple):
    """All perturbations of the tokens up to a length, one for each sample."""

    radius: Float[Tensor, "batch 1 1 1"]
    """The longest."""

    def rows(self, chosen: Tensor) -> "TokenBall":
        """Return the balls of some samples."""
        return TokenBall(self.radius[chosen])

    def project(self, points: Tensor) -> Tensor:
        """Return the closest points inside."""
        return points * (self.radius / length(points)).clamp(max=1)


class Steering:
    """A model of the perturbation alone: the images are fixed, and what is added to their tokens is the input."""

    def __init__(self, target: Glass, samples: Samples, layer: int) -> None:
        self.target = target
        self.deterministic = target.deterministic
        self.images = samples.pixels
        self.places = {name: row for row, name in enumerate(samples.ids)}
        self.layer = layer

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return the logits when `pixels`, which are `Deltas`, are added to the tokens."""
        images = self.images[[self.places[name] for name in ids]]
        return self.target.steered(images, ids, draw, self.layer, pixels[:, 0])


def token_embedding(
    samples: Samples,
    severities: Sequence[str],
    draw: Draw,
    target: Target | None,
    *,
    layer: int,
    steps: int,
    relative_step: float,
    restarts: int,
    passes: int,
) -> tuple[Steered, ...]:
    """Return, for each eps, what to add to the tokens that block `layer` is given so that the model is fooled.

    Projected gradient ascent of the log-odds of the true labels in an L2 ball that each image has of its own: its
    radius is eps times `size` of the stream there. The default -1 is the last block, the one whose input the head is
    closest to; negative layers count from the end. Starts are uniform by volume. Nothing is added where the model is
    wrong anyway. A stochastic model's stream is measured in the draw named `stream`, and `passes` is for it (see
    `ladder`).

    Raises ValueError for a model that cannot be steered, a layer that it has not, ids that occur twice, severities that
    do not rise and counts below 1; ArithmeticError where the logits are not finite. PGD of Madry et al. 2018,
    arXiv:1706.06083, section 2.1, on other inputs; this project's.
    """
    check_walk(steps, relative_step, restarts)
    victim = glass(target, "token_embedding")
    check_samples(samples)
    if len(set(samples.ids)) < len(samples.ids):
        raise ValueError("an id occurs twice; give each sample its own")
    block = layer + victim.layers if layer < 0 else layer
    if not 0 <= block < victim.layers:
        raise ValueError(f"the model has {victim.layers} blocks, 0 to {victim.layers - 1}, got layer {layer}")
    given = samples._replace(pixels=samples.pixels.float())
    stream = _stream(victim, given, draw, block)
    sizes = dict(zip(given.ids, size(stream), strict=True))
    still = given._replace(pixels=torch.zeros_like(stream)[:, None])
    searches = [_search(sizes, steps, relative_step, restart) for restart in range(restarts)]
    found = laddered(still, severities, draw, Steering(victim, given, block), searches, passes)
    return tuple(Steered(given.pixels, block, delta[:, 0]) for delta in found)


def size(stream: Float[Tensor, "batch token dim"]) -> Float[Tensor, " batch"]:
    """Return the Euclidean length of all tokens of a sample after each token's mean is taken off, float64.

    A layer norm takes the mean off anyway: a number that is added to all coordinates of a token changes nothing that a
    block reads, and would buy room for free if it counted.

    >>> round(float(size(torch.tensor([[[9.0, 5.0], [1.0, 1.0]]]))) ** 2, 12)
    8.0
    """
    wide = stream.double()
    centred = wide - (ordered_sum(wide) / wide.shape[-1])[..., None]
    return ordered_sum(centred.flatten(1) ** 2).sqrt()


def _stream(target: Glass, samples: Samples, draw: Draw, layer: int) -> Float[Tensor, "batch token dim"]:
    full = filled(samples)
    with torch.no_grad():
        return target.stream(full.pixels, full.ids, draw.named("stream"), layer)[: len(samples.ids)].float()


def _search(sizes: Mapping[str, Tensor], steps: int, relative_step: float, restart: int) -> Search:
    def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
        radius = eps * torch.stack([sizes[name] for name in samples.ids])
        ball = TokenBall(radius.to(samples.pixels)[:, None, None, None])
        noise = start_l2(draw.at(restart).named("start"), samples.ids, samples.pixels.shape[1:])

        def eye(left: Samples, rows: Tensor) -> View:
            return look(left, steepest=True)

        def stride(step: int, rows: Tensor, gradient: Tensor) -> Tensor:
            return relative_step * ball.radius[rows] * normalize_l2(gradient)

        begun = ball.project(ball.radius * noise.to(samples.pixels))
        return wander(samples, ball, begun, steps, look, eye, stride)

    return search


TOKEN_EMBEDDING = Shift(
    name="token_embedding",
    apply=token_embedding,
    family="adversarial",
    source="this project; the steps are those of Madry et al. 2018, arXiv:1706.06083, section 2.1",
    version=1,
    summary="Moves the tokens between two layers the steepest way uphill, in an L2 ball around each image's stream.",
    severities=("0.05", "0.1", "0.2", "0.4"),
    unit="eps (L2, share of the centred stream)",
    ladder=True,
    needs_target=True,
    norm="tokens",
    knowledge="white_box",
    requires="tokens",
    settings={"layer": -1, "steps": 20, "relative_step": 0.25, "restarts": 1, "passes": 8},
)
