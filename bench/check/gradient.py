"""No gradient is hidden, none is missing and none explodes, beyond what the declaration says."""

import math
from collections.abc import Callable, Mapping
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.variant import Setting
from .face import Face, Inputs, difference, gradients
from .finding import Finding, Refuted, passed
from .subject import MOVED, Subject, in_any_layer

DIRECTIONS = 4
STEPS = (1e-5, 1e-6)
AGREEMENT = 1e-4
"""Largest relative disagreement of a slope, the median over directions and steps: a kink may spoil a few of them."""
SILENCE = 1e-6
"""Slopes below this share of the output are taken for none."""


def parameters(subject: Subject) -> Finding:
    """Every parameter of the network has a finite gradient in some layer."""
    model = subject.network(moved=MOVED, dtype=torch.float64).train()
    samples = subject.samples()
    logits = model(samples.pixels.double(), subject.noise(model, samples, training=True))
    F.cross_entropy(logits, samples.labels).backward()  # type: ignore[no-untyped-call]
    reached: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        g = parameter.grad
        if g is not None and not bool(g.isfinite().all()):
            raise Refuted(f"the gradient of {name} is not finite", "guard divisions, roots and exponentials")
        local = in_any_layer(name)
        flows = g is not None and (".core." not in name or bool(g.any()))
        reached[local] = reached.get(local, False) or flows
    dead = [name for name, flows in reached.items() if not flows]
    if dead:
        raise Refuted(
            f"no gradient reaches {', '.join(dead)} in any layer",
            "use it in forward, leave it out, or make it a buffer if it is not learned",
        )
    own = sum(".core." in name for name in reached)
    return passed(f"reaches all parameters, {own} of them the variant's own" if own else "reaches all parameters")


def gradient_paths(subject: Subject) -> Finding:
    """Autograd agrees with finite differences by every input, and disagrees exactly where `detaches` says so."""
    variant, settings = subject.variant, subject.settings
    opening = {key: value for key, value in variant.open_settings.items() if settings.get(key) != value}
    blocked = blocked_paths(subject, {})
    if blocked and not (variant.detaches and opening):
        raise Refuted(
            blocked,
            "let the gradient through; or declare what is stopped in `detaches` and offer `open_settings` that let it",
        )
    if opening and subject.by_default and not blocked:
        what = ", ".join(variant.detaches)
        raise Refuted(f"detaches declares {what}, but every path is open", "take it out of detaches and open_settings")
    if not opening:
        return passed("autograd agrees with finite differences by every input and parameter")
    _opens(subject, opening)
    return passed(f"stops where declared ({blocked}); the open settings let everything through and move nothing")


def _opens(subject: Subject, opening: Mapping[str, Setting]) -> None:
    chosen = ", ".join(f"{key}={value}" for key, value in opening.items())
    for shut, opened in zip(subject.faces(), subject.faces(opening), strict=True):
        if (moved := difference(shut(shut.inputs()), opened(opened.inputs()))) > 1e-10:
            raise Refuted(
                f"{shut.name}: {chosen} moves the output by {moved:.2g}",
                "open_settings may open gradients only, the function has to stay the same",
            )
    if still := blocked_paths(subject, opening):
        raise Refuted(f"with {chosen}, {still}", "open every path under open_settings")


def blocked_paths(subject: Subject, settings: Mapping[str, Setting]) -> str:
    """Return by which inputs of which layers the gradient is not what finite differences say, empty for none."""
    found: list[str] = []
    names: list[str] = []
    for face in subject.every_face(settings):
        given = face.inputs().requiring_grad()
        slopes = gradients(face(given), given, face)
        wrong = {name: pair for name, g in slopes.items() if (pair := _disagreement(face, given, name, g)) is not None}
        if wrong:
            name, (told, measured) = max(wrong.items(), key=lambda item: abs(item[1][0] - item[1][1]))
            found.append(
                f"{face.name}: gradient by {', '.join(wrong)} is blocked or wrong "
                f"(by {name}: autograd {told:.3g}, finite differences {measured:.3g})"
            )
            names.append(face.name)
    return found[0] + (f"; also in {', '.join(names[1:])}" if names[1:] else "") if found else ""


@torch.no_grad()
def _disagreement(face: Face, given: Inputs, name: str, slope: Tensor) -> tuple[float, float] | None:
    """Return the slopes that autograd and finite differences give along one direction, None where they agree."""
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(face(given).shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    at = _along(face, given, name)
    errors, pairs = [], []
    for _ in range(DIRECTIONS):
        direction = torch.randn(slope.shape, generator=generator, dtype=torch.float64)
        told = float((slope * direction).sum())
        for step in STEPS:
            above, below = (at(sign * step * direction) for sign in (1, -1))
            measured = float((weight * (above - below)).sum()) / (2 * step)
            floor = SILENCE * float((weight * above).abs().sum())
            error = abs(told - measured) / max(abs(told), abs(measured), floor, 1e-12)
            errors.append(error if math.isfinite(error) else math.inf)
            pairs.append((told, measured))
    return None if median(errors) <= AGREEMENT else max(pairs, key=lambda pair: abs(pair[0] - pair[1]))


def _along(face: Face, given: Inputs, name: str) -> Callable[[Tensor], Tensor]:
    """Return the output as a function of a change of one input or parameter."""
    if name in given.leaves:
        return lambda change: face(given.having({name: given.leaves[name] + change}))
    parameter = face.parameters()[name.removeprefix("parameter ")]
    start = parameter.detach().clone()

    def moved(change: Tensor) -> Tensor:
        parameter.copy_(start + change)
        y = face(given)
        parameter.copy_(start)
        return y

    return moved


def extremes(subject: Subject) -> Finding:
    """Outputs and gradients stay finite in float32 for zeros, equal tokens, 1e3, 1e-8 and one huge token."""
    for face in subject.every_face(dtype=torch.float32):
        for what, extreme in EXTREMES.items():
            given = face.inputs()
            given = given.changed(lambda name, t, extreme=extreme: extreme(t))  # type: ignore[misc]
            _finite(face, given, what)
        _finite(face, _unchanging(face.inputs()), "layers that do not change")
    return passed(f"finite outputs and gradients for {', '.join(EXTREMES)} and layers that do not change")


def _huge_token(t: Tensor) -> Tensor:
    factor = torch.ones(t.shape[-2], 1)
    factor[t.shape[-2] // 2] = 1e4
    return t * factor


EXTREMES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda t: 0 * t,
    "equal tokens": lambda t: t[..., :1, :].expand_as(t).clone(),
    "inputs of size 1e3": lambda t: 1e3 * t,
    "inputs of size 1e-8": lambda t: 1e-8 * t,
    "one token of size 1e4": _huge_token,
}


def _unchanging(given: Inputs) -> Inputs:
    """Return inputs where every other layer holds what this one does."""
    sources = {"first": "x", "previous": "x", **{f"{n}.{p}": p for n in ("first", "previous") for p in "qkv"}}
    return given.having({name: given.leaves[sources[name]] for name in given.leaves if name in sources})


def _finite(face: Face, given: Inputs, what: str) -> None:
    fix = "replace a divisor by 1 with torch.where before dividing; subtract the maximum before an exponential"
    given = given.requiring_grad()
    y = face(given)
    if not bool(y.isfinite().all()):
        raise Refuted(f"{face.name}: {what} give outputs that are not finite", fix)
    bad = [name for name, g in gradients(y, given, face).items() if not bool(g.isfinite().all())]
    if bad:
        raise Refuted(f"{face.name}: {what} give gradients that are not finite, by {', '.join(bad)}", fix)
