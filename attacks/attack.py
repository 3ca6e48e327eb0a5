"""Attack any module in one call, from Python: no protocol, no files."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .draw import Draw
from .samples import JUDGE_PASSES, Samples, Target
from .shift import Setting, Shift
from .target import ModuleTarget


class Attacked(NamedTuple):
    """What an attack made of some images, and what the model then says."""

    pixels: tuple[Float[Tensor, "batch channel height width"], ...]
    """The images, one batch a severity."""
    right: Float[Tensor, "severity batch"]
    """Whether each is still classified rightly, 1 or 0; of a stochastic model the share of 50 fresh passes."""

    @property
    def accuracy(self) -> list[float]:
        """Share of right answers at each severity, from 0 to 1."""
        return [float(row.mean()) for row in self.right.double()]


def attack(
    shift: Shift,
    model: nn.Module | Target,
    pixels: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    severities: Sequence[str] = (),
    *,
    noise_seed: int = 0,
    **settings: Setting,
) -> Attacked:
    """Attack a model from pixels in [0, 1] to logits, at severities such as `("8/255",)`, and judge what comes of it.

    `shift` is a constant such as `pgd.PGD`, `settings` are those of its own that differ from their defaults. A module
    that draws noise is wrapped by its owner, as `ModuleTarget(model, deterministic=False)`. Raises ValueError for
    settings that the shift has not, and what the shift raises.
    """
    unknown = sorted(settings.keys() - shift.settings.keys())
    if unknown:
        known = ", ".join(shift.settings) or "none"
        raise ValueError(f"{shift.name} has no setting {', '.join(unknown)}; its settings: {known}")
    target: Target = model if isinstance(model, Target) else ModuleTarget(model)
    samples = Samples(pixels, labels, tuple(map(str, range(len(pixels)))))
    draw = Draw(noise_seed, shift.name, "attack")
    found = shift.apply(samples, tuple(severities) or shift.severities, draw, target, **{**shift.settings, **settings})
    return Attacked(found, torch.stack([judged(target, samples._replace(pixels=p), draw) for p in found]))


def judged(target: Target, samples: Samples, draw: Draw) -> Float[Tensor, " batch"]:
    """Return the share of fresh passes in which each image is classified rightly."""
    streams = [draw._replace(purpose="judge").at(i) for i in range(1 if target.deterministic else JUDGE_PASSES)]
    with torch.no_grad():
        answers = [target(samples.pixels.float(), samples.ids, stream).argmax(1) for stream in streams]
    return torch.stack([answer == samples.labels for answer in answers]).double().mean(0)
