"""What an attack climbs: one number a sample that rises as the model's answer turns from the true class to another.

Each is a function of logits `[batch, class]` and labels `[batch]` and returns `[batch]`, unbounded, in the dtype of the
logits. None of them is averaged over the batch, so no sample changes another one's gradient.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""Called with logits and labels."""
Logits = Float[Tensor, "batch class"]
Labels = Int[Tensor, " batch"]
Values = Float[Tensor, " batch"]

SURE = -30.0
"""Log-odds below which ln softplus(odds) equals the odds to 5e-14."""


def log_odds(logits: Logits, labels: Labels) -> Values:
    """Return ln sum_j!=y exp(z_j) - z_y, of which the cross-entropy is softplus: the same way uphill, never saturated.

    In float32 a model that is sure of itself has a cross-entropy of exactly 0 and no gradient, although its logits
    depend on the pixels as much as ever: multiplying all logits by a constant would pass for robustness. Since softplus
    rises, its argument has the same maxima, and its gradient the same direction.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    largest = others.argmax(1, keepdim=True)
    # ln sum exp(z) is z_j - ln softmax(z)_j for any j, and log_softmax goes row by row, so batches change no bit.
    total = others.gather(1, largest) - others.log_softmax(1).gather(1, largest)
    return (total - logits.gather(1, labels[:, None]))[:, 0]


def cross_entropy(logits: Logits, labels: Labels) -> Values:
    """Return the cross-entropy as other tools climb it: where the model is sure, it and its slope round to 0."""
    return F.cross_entropy(logits, labels, reduction="none")


def log_mean_cross_entropy(odds: Float[Tensor, "passes batch"]) -> Values:
    """Return the logarithm of the mean cross-entropy over passes, from log-odds, in float64."""
    wide = odds.double()
    logs = torch.where(wide < SURE, wide, F.softplus(wide.clamp_min(SURE)).log())
    return logs.logsumexp(0) - torch.tensor(len(odds), dtype=wide.dtype).log()


def margin(logits: Logits, labels: Labels) -> Values:
    """Return the largest other logit minus the labels' logit: above 0 where the sample is fooled."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - logits.gather(1, labels[:, None])[:, 0]


def dlr(logits: Logits, labels: Labels) -> Values:
    """Return the difference of logits ratio: (max_j!=y z_j - z_y) / (z_1 - z_3), z_i the i-th largest logit.

    Neither a shift nor a scale of the logits changes it. Raises ValueError for fewer than three classes. Croce & Hein
    2020, arXiv:2003.01690, equation 6; the 1e-12 of the authors' code keeps equal logits from dividing by 0.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the DLR loss needs 3 classes, the model has {logits.shape[1]}; attack it with apgd_ce")
    ranked = logits.topk(3, dim=1).values
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def dlr_towards(aims: Labels) -> Objective:
    """Return the targeted difference of logits ratio: (z_aim - z_y) / (z_1 - (z_3 + z_4) / 2), one aim a sample.

    Its function raises ValueError for fewer than four classes. Croce & Hein 2020, arXiv:2003.01690, equation 7.
    """

    def towards(logits: Logits, labels: Labels) -> Values:
        if logits.shape[1] < 4:
            raise ValueError(
                f"the targeted DLR loss needs 4 classes, the model has {logits.shape[1]}; attack it with apgd_ce"
            )
        ranked = logits.topk(4, dim=1).values
        gain = logits.gather(1, aims[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
        return gain / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + 1e-12)

    return towards


def difference_towards(aims: Labels) -> Objective:
    """Return z_aim - z_y, one aim a sample: defined for any number of classes."""

    def towards(logits: Logits, labels: Labels) -> Values:
        return logits.gather(1, aims[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]

    return towards
