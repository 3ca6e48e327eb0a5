"""The fast gradient sign method: one step of size eps along the sign of the gradient."""

from collections.abc import Sequence

from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ascent import Walk, strongest
from .ball import BALLS, box


def fgsm(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None, *, passes: int
) -> tuple[Tensor, ...]:
    """Return clip(x + eps sign(gradient), 0, 1) for each eps, with the gradient at the clean image.

    A longer step may lead back to the right class; since the ball of a smaller eps lies in that of a larger one, what
    fooled a deterministic model at a smaller eps is returned at every larger one too, and the security curve never
    rises. Images that it already gets wrong come back unchanged. `passes` is for stochastic models (see `ascent`).

    Raises ValueError for severities that do not rise; ArithmeticError where the logits are not finite. Goodfellow et
    al. 2015, arXiv:1412.6572, section 4.
    """
    single = BALLS["linf"]._replace(project=box)
    return strongest(samples, severities, draw, target, Walk(single, 1, 1.0, random_start=False), passes)


FGSM = Shift(
    name="fgsm",
    apply=fgsm,
    family="adversarial",
    source="Goodfellow et al. 2015, arXiv:1412.6572, section 4",
    version=1,
    summary="One step of size eps along the sign of the gradient.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (L-inf, pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    settings={"passes": 8},
)
