"""The attacks of torchattacks 3.5.1: what each takes, the balls it keeps to, and its known defects."""

import difflib
from collections.abc import Mapping
from typing import Literal, NamedTuple

PREFIX = "torchattacks:"
"""Leads the names of its attacks among the shifts."""

UNBOUNDED = "unbounded"
"""The only severity of an attack that takes no eps."""


Norm = Literal["linf", "l2", "none"]
Knowledge = Literal["none", "white_box", "black_box"]


class Foreign(NamedTuple):
    """One attack class of torchattacks."""

    norms: tuple[Norm, ...]
    """Balls it keeps to, the first by default; `none` where it takes no eps."""
    eps: str = "eps"
    """Its argument for eps; empty where it takes none."""
    relative_step: float = 0.0
    """Default of its argument `alpha` over eps; 0 where it has no such argument."""
    classes: bool = False
    """Whether it takes the number of classes."""
    seed: bool = False
    """Whether it takes a seed, with which it resets the global generators."""
    warning: str = ""
    """Known defects."""
    knowledge: Knowledge = "white_box"
    """What it uses of the model."""
    single_step: bool = False
    """Whether it takes one gradient step."""


LINF: tuple[Norm, ...] = ("linf",)
L2: tuple[Norm, ...] = ("l2",)
BOTH: tuple[Norm, ...] = ("linf", "l2")
NONE: tuple[Norm, ...] = ("none",)

LAST = "Returns the last step, not the first that fools."
RESIZES = "Resizing fails where int(size * resize_rate) equals size, and moves images under 10 pixels by a whole pixel."
RESETS = "Resets its own seed at every call, so all chunks share their random start unless the seed changes."
SHORT = "Runs 10 steps by default where the published attack runs 100; give steps=100."
LOGITS = "Its loss is wrong for negative logits and changes when a constant is added to all of them."
LOOPS = "Loops over single images."
COLOUR = "Works on images of three channels only."

FOREIGN: Mapping[str, Foreign] = {
    "VANILA": Foreign(NONE, "", warning="Changes nothing.", knowledge="none"),
    "GN": Foreign(NONE, "", warning="Random noise, not an attack.", knowledge="none"),
    "FGSM": Foreign(LINF, single_step=True),
    "BIM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "RFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "PGD": Foreign(LINF, relative_step=0.25, warning=LAST),
    "EOTPGD": Foreign(LINF, relative_step=0.25, warning=LAST),
    "FFGSM": Foreign(LINF, relative_step=1.25, warning=LAST, single_step=True),
    "TPGD": Foreign(LINF, relative_step=0.25, warning=LAST + " Ignores the true labels."),
    "MIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "UPGD": Foreign(LINF, relative_step=0.25, warning=LAST + " With loss='cw': " + LOGITS),
    "APGD": Foreign(BOTH, seed=True, warning=SHORT + " " + RESETS),
    "APGDT": Foreign(
        BOTH,
        classes=True,
        seed=True,
        warning=SHORT + " " + RESETS + " Attacks every other class, the published attack nine. In L2 all samples share "
        "the first one's step size.",
    ),
    "DIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST + " " + RESIZES),
    "TIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST + " " + RESIZES + " " + COLOUR),
    "Jitter": Foreign(LINF, relative_step=0.25, warning=LAST),
    "NIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "PGDRS": Foreign(LINF, relative_step=0.25, warning="Made for smoothed classifiers. " + LAST),
    "SINIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "VMIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "VNIFGSM": Foreign(LINF, relative_step=0.25, warning=LAST),
    "SPSA": Foreign(
        LINF,
        warning="By default one step of lr=0.01, so no pixel moves by more than 0.01 whatever eps is. All images share "
        "one random direction, and max_batch_size multiplies the batch.",
        knowledge="black_box",
    ),
    "JSMA": Foreign(
        NONE, "", warning="Always aims at class (label + 1) mod 10, so it fails below ten classes. " + LOOPS
    ),
    "EADL1": Foreign(NONE, ""),
    "EADEN": Foreign(NONE, ""),
    "PIFGSM": Foreign(LINF, "max_epsilon", warning=LAST + " " + COLOUR),
    "PIFGSMPP": Foreign(LINF, "max_epsilon", warning=LAST + " " + COLOUR),
    "CW": Foreign(
        NONE,
        "",
        warning=LOGITS + " Stops the whole batch on its summed cost, and pixels at exactly 0 or 1 never move.",
    ),
    "PGDL2": Foreign(
        L2,
        relative_step=0.25,
        warning=LAST
        + " Adds 1e-10 to the length of a mean loss's gradient, so confident samples of large batches hardly "
        "move; give eps_for_division=1e-30.",
    ),
    "DeepFool": Foreign(NONE, "", warning=LOOPS),
    "PGDRSL2": Foreign(L2, relative_step=0.25, warning="Made for smoothed classifiers. " + LAST),
    "SparseFool": Foreign(NONE, "", warning=LOOPS),
    "OnePixel": Foreign(NONE, "", warning=LOOPS, knowledge="black_box"),
    "Pixle": Foreign(NONE, "", warning=LOOPS, knowledge="black_box"),
    "FAB": Foreign(BOTH, classes=True, seed=True, warning=SHORT + " " + RESETS),
    "AutoAttack": Foreign(
        BOTH,
        classes=True,
        seed=True,
        warning="Not AutoAttack: its gradient attacks run 10 steps where the published ones run 100, and its Square "
        "search uses a rescaled schedule. Robustness is overstated; do not compare with published AutoAttack numbers.",
    ),
    "Square": Foreign(
        BOTH,
        seed=True,
        warning="Uses a rescaled schedule; give resc_schedule=False for the published one. " + RESETS,
        knowledge="black_box",
    ),
}
"""By class name. The wrappers MultiAttack and LGV need more than a model and are left out."""


def foreign(name: str) -> tuple[str, Foreign]:
    """Return an attack's class name and its row, with or without the prefix. Raises ValueError for an unknown name."""
    bare = name.removeprefix(PREFIX)
    if bare in FOREIGN:
        return bare, FOREIGN[bare]
    lowered = {known.lower(): known for known in FOREIGN}
    near = difflib.get_close_matches(bare.lower(), lowered, n=1)
    meant = f"; did you mean {PREFIX}{lowered[near[0]]}?" if near else ""
    raise ValueError(f"torchattacks has no attack {bare!r}{meant} It offers {', '.join(FOREIGN)}.")
