"""The border between two classes as a point sees it, a hyperplane: how far away it is, and the shortest way to it."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..ordered_sum import ordered_sum

Vectors = Float[Tensor, "batch pixel"]


class Border(NamedTuple):
    """Where another class's logit would overtake the true one's, were both linear in the pixels."""

    gap: Float[Tensor, " batch"]
    """The other logit minus the true class's: below 0 before the border."""
    slope: Float[Tensor, "batch channel height width"]
    """Gradient of the gap."""


def distance(border: Border, norm: str) -> Float[Tensor, " batch"]:
    """Return how far away a border is, the box left aside, in float64: |gap| over the slope's dual norm."""
    slopes = border.slope.flatten(1).double()
    steepness = ordered_sum(slopes.abs()) if norm == "linf" else ordered_sum(slopes**2).sqrt()
    return border.gap.double().abs() / steepness.clamp_min(torch.finfo(slopes.dtype).tiny)


def shortest_way(points: Vectors, slopes: Vectors, rises: Float[Tensor, " batch"], norm: str) -> Vectors:
    """Return the smallest d with slopes . d = rises and points + d in [0, 1], in float64.

    Where the whole box does not reach that far, d leads to its farthest corner; where the slope is 0, d is 0. A
    negative rise goes downhill.

    Let u be the absolute slopes, m the room that each pixel has in its useful direction and r the absolute rise. The
    useful lengths t are to satisfy u . t = r with 0 <= t <= m. In L-inf no pixel needs to go less far than another one
    unless it meets the box: t = min(m, s). In L2 the Lagrangian gives t = min(m, s u). So t = min(m, s pace), and
    u . t rises with s, linearly between the points where a pixel meets the box and ever more slowly. Newton's method
    from s = 0 therefore never passes the solution: whatever has met the box stays there, and s is exact as soon as
    nothing new meets it. In practice that takes a handful of rounds. The problem is one step of FAB, Croce &
    Hein 2020, arXiv:1907.02044.

    >>> points = torch.tensor([[0.5, 0.5, 0.9]], dtype=torch.float64)
    >>> slopes, rises = torch.tensor([[2.0, -1.0, 1.0]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    >>> [round(way, 6) for way in shortest_way(points, slopes, rises, "linf")[0].tolist()]
    [0.2, -0.2, 0.1]
    >>> [round(way, 6) for way in shortest_way(points, slopes, rises, "l2")[0].tolist()]
    [0.24, -0.12, 0.1]
    """
    points, slopes, rises = points.double(), slopes.double(), rises.double()
    useful = slopes * rises.sign()[:, None]
    steep, wanted = slopes.abs(), rises.abs()
    room = torch.where(useful > 0, 1 - points, points).clamp_min(0) * (steep > 0)
    pace = torch.ones_like(steep) if norm == "linf" else steep
    reached = steep * room
    met = steep == 0
    while True:
        left = wanted - ordered_sum(reached * met)
        gain = ordered_sum(steep * pace * ~met)
        lengths = torch.where(gain > 0, left / gain.clamp_min(torch.finfo(gain.dtype).tiny), 0)[:, None] * pace
        new = ~met & (lengths >= room)
        if not new.any():
            break
        met |= new
    return useful.sign() * torch.where(met, room, lengths)
