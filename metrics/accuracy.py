"""How often the model is right: the share of passes whose largest logit is that of the true class."""

from jaxtyping import Float
from torch import Tensor

from .metric import Metric
from .observation import Observation


def accuracy(observation: Observation) -> Float[Tensor, " batch"]:
    """Return the share of passes in which the first largest logit belongs to the target, by input.

    0 or 1 for a deterministic model, which has one pass. NaN for an input with a NaN among its logits in any pass: a
    model that gave no answer was neither right nor wrong.

    >>> import torch
    >>> logits = torch.tensor([[[2.0, 1.0]], [[0.0, 1.0]]])  # two passes over one input
    >>> accuracy(Observation(logits, targets=torch.tensor([0]), hidden={})).item()
    0.5
    """
    right = observation.logits.argmax(-1) == observation.targets
    answered = ~observation.logits.isnan().any(-1).any(0)
    return right.double().mean(0).where(answered, float("nan"))


ACCURACY = Metric(
    name="accuracy",
    measure=accuracy,
    needs="outputs",
    version=1,
    axis="output",
    unit="1",
    better="higher",
    lowest=0.0,
    highest=1.0,
    null="the share of the most frequent class for a constant answer",
    definition="share of passes with argmax(logits) = target for one input (the first largest, where several tie), "
    "then the mean over inputs; undefined where a logit is NaN",
    source="none needed",
)
