"""The same input gives the same output, in whatever company, unless the declaration says that it does not."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...models.variant import Setting
from .face import Face, difference, steepest_leak
from .finding import Finding, Refuted, passed
from .subject import Subject

TOLERANCE = 1e-10
"""Relative; rounding in float64."""
COMPANY = 8
"""Rows of a batch: matrix products of fewer take another path."""


def determinism(subject: Subject) -> Finding:
    """The same inputs and noise give equal bits; only declared noise moves the output, and it does."""
    moved = False
    for face in subject.every_face():
        for training in (False, True):
            face.host.train(training)
            _repeats(face, "in training" if training else "in eval mode")
        face.host.eval()
        if face.noise(1, 0):
            first, other = face(face.inputs()), face(face.inputs(repeat=1))
            moved = True
            if torch.equal(first, other):
                raise Refuted(
                    f"{face.name}: drawing the declared noise anew does not move the output",
                    "use ctx.noise, or declare no noise",
                )
    return passed("equal bits twice" + (", declared noise moves the output" if moved else ""))


def _repeats(face: Face, when: str) -> None:
    given = face.inputs()
    face(given)  # what a module keeps from its first call is no randomness
    seeded(0)
    first = face(given)
    seeded(1)
    before = _states()
    second = face(given)
    if not torch.equal(first, second):
        raise Refuted(
            f"{face.name} {when}: two calls with the same inputs and noise differ by {difference(first, second):.2g}",
            "declare the randomness as `noise = (Noise(...),)` and read it from ctx.noise, or remove it",
        )
    if _states() != before:
        raise Refuted(
            f"{face.name} {when}: the call moved the global random state",
            "draw nothing in forward: declare `noise` and read it from ctx.noise",
        )


def seeded(seed: int) -> None:
    """Seed every global generator."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _states() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())


def batch(subject: Subject) -> Finding:
    """A sample's output and its gradient depend on that sample alone, or the coupling is declared and real."""
    coupling, settings = subject.variant.coupling_settings, subject.settings
    declared = subject.variant.batch_coupled or _active(coupling, settings)
    mixing = _mixing(subject, {})
    if declared and not mixing:
        raise Refuted("it says that samples mix, and they do not", "set batch_coupled=False, coupling_settings={}")
    if mixing and not declared:
        raise Refuted(mixing, "reduce over tokens or heads, never over the batch; or declare batch_coupled=True")
    if coupling and not declared and not _mixing(subject, coupling):
        chosen = ", ".join(f"{key}={value}" for key, value in coupling.items())
        raise Refuted(f"with {chosen} samples do not mix", "name the settings that mix them in coupling_settings")
    return passed("samples mix, as declared" if declared else "a sample's output is its own")


def _active(coupling: Mapping[str, Setting], settings: Mapping[str, Setting]) -> bool:
    return bool(coupling) and all(settings.get(key) == value for key, value in coupling.items())


def _mixing(subject: Subject, settings: Mapping[str, Setting]) -> str:
    """Return how the samples of a batch mix, an empty string where they do not."""
    for face in subject.every_face(settings):
        for training in (False, True):
            face.host.train(training)
            if found := _mixed(face):
                return f"{face.name} {'in training' if training else 'in eval mode'}: {found}"
    return ""


def _mixed(face: Face) -> str:
    kept = COMPANY // 2
    given, other = face.inputs(batch=COMPANY), face.inputs(1, batch=COMPANY)

    def spliced(name: str, t: Tensor) -> Tensor:
        return torch.cat((t[:kept], other.leaves[name][kept:]))

    y = face(given)
    company = {
        "its companions change": (face(given.changed(spliced))[:kept], y[:kept]),
        "it stands alone": (face(given.rows([0] * COMPANY))[:1], y[:1]),
    }
    for what, (changed, as_before) in company.items():
        if (moved := difference(as_before, changed)) > TOLERANCE:
            return f"a sample's output moves by {moved:.2g} when {what}"
    name, size = steepest_leak(face, given, lambda y: y[:kept], lambda t: t[kept:])
    return f"a sample's output has a gradient of {size:.2g} by {name} of other samples" if size > TOLERANCE else ""
