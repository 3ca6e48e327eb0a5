"""Everything about a model that says whether its adversarial numbers can be believed, as facts without a verdict."""

import warnings
from collections.abc import Sequence

import torch

from ..adversarial.ball import BALLS
from ..adversarial.ladder import ladder_of
from ..draw import Draw
from ..guard import NoGradient, admitted
from ..samples import Samples, Target
from ..version import TRUST_VERSION
from .attention import batch_dependence, saturated_attention
from .checklist import checklist
from .derivative import hidden_gradient
from .fact import Facts, absent
from .failure import failures
from .flags import flags, gradients
from .runs import runs
from .trial import Settings, Trial, trial

ATTACKED = (
    "zero_gradient",
    "saturated_cross_entropy",
    "unsteady_gradient",
    "hidden_gradient",
    "unstable_predictions",
    "silent_success",
    "incomplete_optimisation",
    "transfer_failure",
    "unbounded_attack_fails",
    "stuck_walk",
    "single_step_stronger",
    "steps_matter",
    "larger_eps_weaker",
    "restarts_matter",
    "black_box_stronger",
    "noise_stronger",
    "transfer_stronger",
    "opened_twin_stronger",
    "curve",
)
"""What can be measured only on samples that the model gets right."""


def evidence(
    target: Target,
    samples: Samples,
    *,
    norm: str,
    ladder: Sequence[str],
    draw: Draw,
    opened: Target | None = None,
    surrogate: Target | None = None,
    settings: Settings | None = None,
) -> Facts:
    """Return what was measured, by the name of the gate that reads it, under `measured`; beside it on what terms.

    The samples are a fixed subsample, in one batch. `opened` is the same function with every gradient path open,
    `surrogate` another model on which points are found that are then tried on this one. Walks are those of `pgd`, with
    log-odds, but from scratch at every eps and to the last step. The same draw gives the same facts, unless the model
    itself varies.

    With the default settings a deterministic model costs at most 300 passes with a gradient and 2000 without, an opened
    twin and a surrogate included; a stochastic one 8 times the gradients, and 3500 passes without one.

    Raises ValueError for samples that are no images, an unknown norm, a ladder that does not rise or has no eps above
    0, and counts below 1; ArithmeticError where logits or gradients are not finite.
    """
    settings = settings or Settings()
    steps = ladder_of(ladder)
    wide = admitted(samples)
    check_terms(norm, steps, settings)
    with torch.inference_mode(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGradient)  # It is one of the facts.
        on = trial(target, wide, norm, steps, draw, settings)
        eps, found = attacked(on, opened, surrogate)
        shown = {**flags(on), "batch_dependence": batch_dependence(on), "saturated_attention": saturated_attention(on)}
    return {
        "version": TRUST_VERSION,
        "norm": norm,
        "ladder": list(ladder),
        "climbed": list(on.ladder),
        "eps": eps,
        "n": len(wide.ids),
        "right": len(on.right.ids),
        "deterministic": target.deterministic,
        "opened": opened is not None,
        "surrogate": surrogate is not None,
        "settings": settings._asdict(),
        "measured": {**shown, **found},
    }


def attacked(on: Trial, opened: Target | None, surrogate: Target | None) -> tuple[float | None, Facts]:
    """Return the reference eps, and what attacks on the samples that the model gets right show.

    Without such samples there is no eps, and nothing was measured.
    """
    if not on.right.ids:
        return None, {name: absent("the model gets no sample right") for name in ATTACKED}
    seen = runs(on, opened, surrogate)
    return seen.eps, {
        **gradients(on),
        "hidden_gradient": hidden_gradient(on, opened),
        **failures(on, seen, opened),
        **checklist(on, seen),
    }


def check_terms(norm: str, ladder: Sequence[float], settings: Settings) -> None:
    """Refuse terms on which nothing can be measured."""
    if norm not in BALLS:
        raise ValueError(f"unknown norm {norm!r} for the trust report; choose from {', '.join(BALLS)}")
    if not any(eps > 0 for eps in ladder):
        raise ValueError(f"the trust report needs an eps above 0, got {list(ladder)}")
    if min(settings) <= 0 or settings.restarts < 2:
        raise ValueError(f"settings must be above 0 and restarts at least 2, got {settings}")
