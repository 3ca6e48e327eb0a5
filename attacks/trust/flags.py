"""Whether the model is of a kind that gradient attacks are not made for: the flags of AutoAttack, one by one.

Croce and Hein 2020, arXiv:2003.01690, and the checks of its code. Measured on the clean images.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..adversarial.look import Look
from ..adversarial.objective import cross_entropy, log_odds
from .fact import Facts, absent, counted
from .trial import Trial, vanished

REPEATS = 5
"""Passes over the same pixels."""
ROUNDING = 1e-4
"""Largest change of a logit, relative to the sample's largest one, that passes for rounding."""


def flags(trial: Trial) -> Facts:
    """Return the facts behind the flags, by name."""
    return {
        "undeclared_randomness": randomness(trial),
        "probabilities": probabilities(trial),
        "dynamic": dynamic(trial),
        "few_classes": {"classes": classes(trial), "n": len(trial.samples.ids)},
        "interrupted_graph": interrupted_graph(trial),
    }


def gradients(trial: Trial) -> Facts:
    """Return the facts about gradients at the clean images that the model gets right, by name."""
    right, look = trial.right, trial.look()
    gradient = look(right, steepest=True).gradient
    assert gradient is not None
    plain = trial.look()(right, steepest=True, objective=cross_entropy).gradient
    assert plain is not None
    blind = vanished(gradient)
    found = {"zero_gradient": counted(blind), "saturated_cross_entropy": counted(vanished(plain) & ~blind)}
    if trial.deterministic:
        found["unsteady_gradient"] = absent("a deterministic model's gradient is always the same")
        return found
    again = look(right, steepest=True).gradient
    assert again is not None
    agreement = (gradient.double() * again.double()).flatten(1).sum(1)
    found["unsteady_gradient"] = counted(agreement <= 0)
    return found


def randomness(trial: Trial) -> Facts:
    """Return how many samples' logits differ between passes over the same pixels, and how far at most.

    Not applicable where the model declares that it draws noise.
    """
    if not trial.deterministic:
        return absent("the model declares its noise: it is attacked and judged over several passes")
    look = Look(trial.target, trial.draw)
    seen = [look(trial.samples).logits for _ in range(REPEATS)]
    change = torch.stack([moved(seen[0], other) for other in seen[1:]]).amax(0)
    return {**counted(change > ROUNDING), "largest": float(change.max())}


def moved(logits: Float[Tensor, "batch class"], other: Float[Tensor, "batch class"]) -> Float[Tensor, " batch"]:
    """Return by how much each sample's logits differ, relative to its largest one."""
    size = logits.abs().amax(1).clamp_min(torch.finfo(logits.dtype).tiny)
    return (logits - other).abs().amax(1) / size


def probabilities(trial: Trial) -> Facts:
    """Return for how many samples the outputs lie in [0, 1] and sum to 1, both within 1e-5."""
    logits = Look(trial.target, trial.draw)(trial.samples).logits
    inside = ((logits > -1e-5) & (logits < 1 + 1e-5)).all(1)
    return counted(inside & ((logits.sum(1) - 1).abs() < 1e-5))


def classes(trial: Trial) -> int:
    """Return the number of classes."""
    return Look(trial.target, trial.draw)(trial.samples.rows([0])).logits.shape[1]


def interrupted_graph(trial: Trial) -> Facts:
    """Return for how many samples no path of the graph leads from the logits to the pixels: all or none."""
    samples = trial.samples
    with torch.enable_grad():
        pixels = samples.pixels.detach().clone().requires_grad_()
        value = log_odds(trial.target(pixels, samples.ids, trial.draw.named("model")), samples.labels).sum()
        reached = value.requires_grad and torch.autograd.grad(value, pixels, allow_unused=True)[0] is not None
    return {"count": 0 if reached else len(samples.ids), "n": len(samples.ids)}


class GradientCalls(TorchFunctionMode):
    """Counts, while it is entered, the calls that ask for gradients, under whatever name they were imported."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call and let it pass."""
        name = getattr(func, "__name__", "")
        if name in ("grad", "backward"):
            self.calls[name] = self.calls.get(name, 0) + 1
        elif name == "_set_grad_enabled" and args and args[0]:
            self.calls["enable_grad"] = self.calls.get("enable_grad", 0) + 1
        return func(*args, **(kwargs or {}))


def dynamic(trial: Trial) -> Facts:
    """Return how often one pass without gradients asks for gradients itself: `count`, and `calls` by name."""
    watch, samples = GradientCalls(), trial.samples
    with torch.no_grad(), watch:
        trial.target(samples.pixels, samples.ids, trial.draw.named("model"))
    asked = {name: number for name, number in sorted(watch.calls.items()) if name != "enable_grad"}
    opened = watch.calls.get("enable_grad", 0)
    calls = asked or ({"enable_grad": opened} if opened else {})
    return {"count": sum(calls.values()), "calls": calls, "n": len(samples.ids)}
