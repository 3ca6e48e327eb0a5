"""The page of all shifts, `docs/shifts.md`: made from the declarations alone, so that the two always agree."""

from collections.abc import Iterable, Iterator

from ..attacks.adversarial.foreign import FOREIGN, PREFIX
from ..attacks.adversarial.torchattacks import torchattacks_shift
from ..attacks.shift import Shift
from .catalog import PACKAGE, Catalog
from .markdown import code, setting_texts, table, words

COMMAND = "attnbench ls shifts --markdown"
PAGE = "docs/shifts.md"

INTRODUCTION = f"""\
# Shifts

Made by `{COMMAND} > {PAGE}` from what the files in `attacks/` declare: change a declaration, not this page.

How to read it:

- **Knows**: what it uses of the model. *White box*: gradients; *black box*: answers; *transfer*: other models; *none*:
  it never looks.
- **Ball**: what the perturbation must stay in, measured anew in float64 after the attack. *linf*, *l2*: eps in pixels
  of [0, 1]; *patches*: how many patches changed; *tokens*: length in the stream between two layers over the length of
  the stream, each token's mean taken off; *none*: no ball.
- **Severities**: those of a plain run. A *ladder* is one cell, a security curve; the others are one cell each.
- Settings stand in parentheses or after a colon: `pgd(norm=l2,steps=50)`. `passes` is for models that answer at random.

Labels are the true ones, and a sample is robust only if nothing that was tried fooled it. Variants that cut gradients
are attacked as they are and with every path open, the worst of both counts. `--attack A,B,C` adds attacks to a
protocol, and the report shows the worst case of all attacks of a ball.
"""

FOREIGN_INTRODUCTION = f"""\
## The attacks of torchattacks

Each class that works today is a shift named `{PREFIX}<Name>`, at a stated eps and with its steps and step size open
to `arguments` and `relative_step`. They draw for a whole batch at once, so they run in fixed chunks. What is known to
be wrong with one stands beside every number that it yields. Left out: the wrappers MultiAttack and LGV, which need more
than a model.
"""

HEADINGS = ("shift and settings", "what happens to the input", "knows", "ball", "severities", "source", "what to know")


def built_in_shifts(catalog: Catalog) -> list[Shift]:
    """Return the shifts that attnbench brings."""
    found = (catalog.found["shift"][name] for name in catalog.names("shift"))
    return [d.value for d in found if d.origin.module.partition(".")[0] == PACKAGE and isinstance(d.value, Shift)]


def shift_page(shifts: Iterable[Shift]) -> str:
    """Return the page in Markdown, family by family."""
    found = list(shifts)
    parts = [INTRODUCTION]
    for family in ("adversarial", "corruption", "contamination", "natural", "clean"):
        some = [shift for shift in found if shift.family == family]
        if some:
            parts += [f"## {family.capitalize()}\n", table(HEADINGS, map(_row, some))]
    foreign = (torchattacks_shift(name) for name in FOREIGN)
    columns = ("shift", "ball", "eps", "what is known to be wrong")
    return "\n".join([*parts, FOREIGN_INTRODUCTION, table(columns, map(_foreign_row, foreign))])


def _row(shift: Shift) -> tuple[str, ...]:
    written = "".join(f"<br>{code(text)}" for text in setting_texts(shift.settings, shift.choices))
    severities = ", ".join(shift.severities) + ("; a ladder" if shift.ladder and len(shift.severities) > 1 else "")
    return (
        code(shift.name) + written,
        words(shift.summary),
        words(shift.knowledge.replace("_", " ")),
        words(_ball(shift)),
        words(f"{severities} ({shift.unit})" if shift.unit != "none" else severities),
        words(shift.source),
        words(" ".join(_to_know(shift))) or "-",
    )


def _ball(shift: Shift) -> str:
    choices = [str(norm) for norm in shift.choices.get("norm", ())]
    return " or ".join(choices or [shift.norm])


def _to_know(shift: Shift) -> Iterator[str]:
    if shift.convention:
        yield f"Non-standard: the convention of {shift.convention}; never in a worst case or a ranking."
    if shift.minimum_norm:
        yield "It looks for the smallest perturbation, once; severities only cut what it found."
    if shift.requires:
        yield f"Not applicable to a model that does not show its {shift.requires.replace('_', ' ')}."
    for setting, what in shift.requires_where.items():
        yield f"With {setting} not applicable to a model that does not show its {what.replace('_', ' ')}."
    if shift.warning:
        yield shift.warning


def _foreign_row(shift: Shift) -> tuple[str, ...]:
    eps = "takes none" if shift.severities == ("unbounded",) else "stated"
    return (code(shift.name), words(_ball(shift)), eps, words(shift.warning) or "-")
