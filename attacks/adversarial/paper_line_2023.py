"""The evaluation of the Elliptical and RKDE papers, step by step: not a robustness number, kept to compare with theirs.

It attacks normalised images, so that an eps of 1/255 is std/255 in pixels; it never returns to the box, so that what is
judged may be no image; it climbs the loss of the model's own answer instead of the true label, the plain cross-entropy
in float32, whose gradient vanishes where the model is sure; and it keeps the last of 20 steps of 0.15 eps.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..draw import Draw
from ..guard import check_samples
from ..samples import Samples, Target
from ..shift import Shift, severity_value
from .ball import start_linf
from .look import Look
from .objective import cross_entropy

STEPS = 20
"""Of the iterative attack."""
RELATIVE_STEP = 0.15
"""Length of its steps over eps."""


@runtime_checkable
class Normalises(Protocol):
    """A target that says by what it divides pixels."""

    std: tuple[float, ...]
    """Standard deviation by which each channel is divided inside."""


def pixel_eps(eps: float, std: Sequence[float]) -> float:
    """Return what an eps of normalised images is in pixels, in the channel where it is largest.

    >>> round(255 * pixel_eps(1 / 255, (0.229, 0.224, 0.225)), 3)  # ImageNet
    0.229
    """
    return eps * max(std)


def paper_line_2023(
    samples: Samples, severities: Sequence[str], draw: Draw, target: Target | None, *, attack: str
) -> tuple[Tensor, ...]:
    """Return, for each eps, what the papers' code makes of the images, as pixels that may leave [0, 1].

    `attack` is `fgsm`, one step of eps from the clean image, or `pgd`, 20 steps of 0.15 eps from a uniform start. Every
    eps is attacked anew and every image moves, those that are wrong already too. Raises ValueError for another attack,
    and for a target that does not say how it normalises; ArithmeticError where the logits are not finite.

    `ImageAttack/engine.py` and `run_*.sh` of the authors' repository, which call cleverhans' `fast_gradient_method` and
    `projected_gradient_descent` without labels and without clipping.
    """
    if target is None or not isinstance(target, Normalises):
        raise ValueError(
            "paper_line_2023 attacks normalised pixels, and this model does not say how it normalises them"
        )
    if attack not in ("fgsm", "pgd"):
        raise ValueError(f"unknown attack {attack!r} of paper_line_2023; choose from fgsm, pgd")
    check_samples(samples)
    look = Look(target, draw)
    clean = samples.pixels.float()
    answers = look(samples).logits.argmax(1)
    own = samples._replace(labels=answers)
    scale = torch.tensor(target.std).to(clean)[:, None, None]
    batches = []
    for text in severities:
        radius = severity_value(text) * scale
        if attack == "fgsm":
            batches.append(clean + radius * _sign(own, clean, look))
            continue
        noise = start_linf(draw.named("start"), samples.ids, clean.shape[1:]).to(clean)
        here = clean + radius * noise
        for _ in range(STEPS):
            moved = here + RELATIVE_STEP * radius * _sign(own, here, look)
            here = torch.minimum(torch.maximum(moved, clean - radius), clean + radius)
        batches.append(here)
    return tuple(batches)


def _sign(samples: Samples, pixels: Tensor, look: Look) -> Tensor:
    gradient = look(samples._replace(pixels=pixels), steepest=True, objective=cross_entropy).gradient
    assert gradient is not None
    return gradient.sign()


PAPER_LINE_2023 = Shift(
    name="paper_line_2023",
    apply=paper_line_2023,
    family="adversarial",
    source="github.com/stefvk/Elliptical-Attention, ImageAttack (arXiv:2406.13770), and RKDE before it",
    version=2,
    summary="The papers' own evaluation: normalised eps, no box, labels that the model chose, the last of 20 steps.",
    severities=("1/255", "2/255", "3/255", "4/255", "5/255", "6/255"),
    unit="eps (L-inf, normalised)",
    ladder=True,
    needs_target=True,
    norm="linf",
    knowledge="white_box",
    requires="normalisation",
    convention="Elliptical Attention and RKDE, 2023",
    settings={"attack": "pgd"},
    choices={"attack": ("fgsm", "pgd")},
    warning="Not a standard robustness number: eps is in normalised units, the result may be no image, and the attack "
    "climbs the loss of the model's own answers.",
)
