"""The fast gradient sign method: one step of size eps along the sign of the gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..draw import Draw
from ..samples import Samples, Target
from ..shift import Shift
from .ascent import Walk, climb
from .ball import BALLS, box
from .ladder import Found, laddered, where
from .look import Look


def fgsm(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None, *, passes: int
) -> tuple[Tensor, ...]:
    """Return clip(x + eps sign(gradient), 0, 1) for each eps, with the gradient at the clean image.

    A longer step may lead back to the right class; since the ball of a smaller eps lies in that of a larger one, what
    fooled a deterministic model at a smaller eps is returned at every larger one too, and the security curve never
    rises. Images that it already gets wrong come back unchanged. `passes` is for stochastic models (see `ladder`).

    Raises ValueError for severities that do not rise; ArithmeticError where the logits are not finite. Goodfellow et
    al. 2015, arXiv:1412.6572, section 4.
    """
    return laddered(samples, severities, draw, target, [SingleStep()], passes)


class SingleStep:
    """Steps once; a deterministic model is asked for its gradient once, however many eps follow.

    One ladder has one of these: at the next eps it is given those that it left standing, and remembers their signs.
    """

    walk = Walk(BALLS["linf"]._replace(project=box), 1, 1.0, random_start=False)
    """What is done against a stochastic model, at every eps from scratch."""

    def __init__(self) -> None:
        self.standing: tuple[str, ...] = ()
        self.signs = torch.empty(0)

    def __call__(self, samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
        """Search as `Search` says."""
        if not look.deterministic:
            return climb(samples, samples.pixels, eps, self.walk, look, "highest")
        if samples.ids != self.standing:
            gradient = look(samples, steepest=True).gradient
            assert gradient is not None
            self.signs = gradient.sign()
        pixels = box(samples.pixels + eps * self.signs, samples.pixels, eps)
        view = look(samples._replace(pixels=pixels))
        going = where(~view.fooled)
        self.standing, self.signs = samples.rows(going).ids, self.signs[going]
        return Found(pixels, view.fooled, view.loss)


FGSM = Shift(
    name="fgsm",
    apply=fgsm,
    family="adversarial",
    source="Goodfellow et al. 2015, arXiv:1412.6572, section 4",
    version=3,
    summary="One step of size eps along the sign of the gradient.",
    severities=("0.02", "0.05", "0.1", "0.15", "0.2"),
    unit="eps (L-inf, pixels)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    single_step=True,
    settings={"passes": 8},
)
