"""Points are proposed one after another, and each replaces the best so far where it is better: no gradient needed."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..samples import Samples
from .ascent import record
from .ladder import Found, where
from .look import Look
from .objective import margin

Propose = Callable[[int, Tensor, Samples, Tensor], Tensor]
"""Called with the index of the try, the rows of the batch that still stand, their clean samples and their best points;
returns one point for each, inside ball and box. At the first try the best points are the clean ones."""


def random_search(samples: Samples, look: Look, tries: int, propose: Propose) -> Found:
    """Return each sample's best point after some tries, one pass (or `passes`) a try.

    Against a deterministic model the margin decides, and a fooled sample is left alone at once. Against a stochastic
    one the mean cross-entropy does, by which the points of all searches are compared.
    """
    rows, some = torch.arange(len(samples.ids)), samples
    lowest = torch.full_like(samples.pixels[:, 0, 0, 0], -torch.inf)
    kept = Found(samples.pixels.clone(), torch.zeros_like(samples.labels, dtype=torch.bool), lowest.clone())
    best, height = Found(*kept), lowest
    for index in range(tries):
        tried = propose(index, rows, some, best.pixels)
        view = look(some._replace(pixels=tried), objective=margin)
        reached = view.value if look.deterministic else view.loss
        better = (reached > height) | view.fooled if look.deterministic else reached > height
        height = torch.where(better, reached, height)
        best = Found(
            torch.where(better[:, None, None, None], tried, best.pixels),
            torch.where(better, view.fooled, best.fooled),
            torch.where(better, view.loss, best.loss),
        )
        if look.deterministic and view.fooled.any():
            record(kept, rows, best)
            standing = where(~view.fooled)
            rows, some, height = rows[standing], some.rows(standing), height[standing]
            best = Found(*(part[standing] for part in best))
            if not len(rows):
                return kept
    record(kept, rows, best)
    return kept
