"""What a declaration says agrees with the code that it speaks of."""

import inspect
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ...models.attention import Attention, Calibrates, DrawsNoise
from ...models.initial_value import draw_initial_values
from ...models.variants.softmax import SoftmaxAttention
from .face import Face, difference
from .finding import Finding, Refuted, not_applicable, passed
from .subject import Subject

MEASURED = ("logit_spread",)
"""What the workbench can measure on a donor."""


def declaration(subject: Subject) -> Finding:
    """Name, settings, choices, noise and calibration are those of the code, and every choice can be built."""
    for found, fix in chain(_names(subject), _settings(subject), _cores(subject)):
        raise Refuted(found, fix)
    return passed(f"{len(subject.variant.settings)} settings, as the core takes them; every choice can be built")


Fault = tuple[str, str]


def _names(subject: Subject) -> Iterator[Fault]:
    variant = subject.variant
    if not re.fullmatch(r"[a-z][a-z0-9_]*", variant.name):
        yield f"the name is '{variant.name}'", "use lower snake case: a letter, then letters, digits and _"
    if subject.builtin and variant.name != Path(subject.origin).stem:
        yield f"'{variant.name}' stands in {Path(subject.origin).name}", "call the file as the variant"
    for kind in ("source", "summary", "formula", "family"):
        if not getattr(variant, kind).strip():
            yield f"{kind} is empty", f"fill in {kind}"
    for kind in ("version", "minimum_tokens", "heads_multiple_of"):
        if getattr(variant, kind) < 1:
            yield f"{kind} is {getattr(variant, kind)}", "it is a whole number from 1"
    for name in set(variant.measured) - set(MEASURED):
        yield f"nothing measures '{name}'", f"measured may name {', '.join(MEASURED)}"
    if bool(variant.detaches) != bool(variant.open_settings):
        yield "only one of detaches and open_settings is given", "say what is stopped and which settings open it"
    if variant.coupling_settings and variant.batch_coupled:
        yield "both batch_coupled and coupling_settings are given", "batch_coupled speaks of the default settings"


def _settings(subject: Subject) -> Iterator[Fault]:
    variant = subject.variant
    taken = dict(list(inspect.signature(subject.core).parameters.items())[1:])
    declared = set(variant.settings) | set(variant.measured)
    if set(taken) != declared:
        yield (
            f"the core takes {', '.join(taken) or 'nothing'} beside its site, the declaration names "
            f"{', '.join(sorted(declared)) or 'nothing'}",
            "give every argument of __init__ a setting, and every setting an argument",
        )
    for name, default in variant.settings.items():
        own = taken[name].default if name in taken else inspect.Parameter.empty
        if own not in (default, inspect.Parameter.empty):
            yield f"setting '{name}' is {default!r}, the core's own default is {own!r}", "give both one default"
    for kind in ("choices", "open_settings", "coupling_settings"):
        for name in set(getattr(variant, kind)) - set(variant.settings):
            yield f"{kind} names '{name}', which is no setting", f"its settings are {', '.join(variant.settings)}"
    for name, allowed in variant.choices.items():
        for kind in ("settings", "open_settings", "coupling_settings"):
            value = getattr(variant, kind).get(name, allowed[0])
            if value not in allowed:
                yield f"{kind} has {name}={value!r}, which is no choice", f"choices are {', '.join(map(str, allowed))}"
    for kind in ("extra_tokens", "parameters_of"):
        named = getattr(variant, kind)
        if named and named not in variant.settings:
            yield f"{kind} names '{named}', which is no setting", f"its settings are {', '.join(variant.settings)}"


def _cores(subject: Subject) -> Iterator[Fault]:
    """Build every choice; look at what the cores have."""
    variant = subject.variant
    drawn: set[str] = set()
    wanted = [{}, *({name: value} for name, allowed in variant.choices.items() for value in allowed)]
    for settings in wanted:
        for layer in (1, 0):
            core = subject.host(subject.site(layer), settings).core
            if isinstance(core, DrawsNoise):
                drawn |= {noise.name for noise in core.noise}
            if isinstance(core, Calibrates) != variant.calibrates:
                has = "has" if isinstance(core, Calibrates) else "has no"
                yield f"calibrates={variant.calibrates}, but the core {has} `calibrate`", "declare what it has"
    if extra := drawn - set(variant.noise):
        yield f"the core draws {', '.join(sorted(extra))} without saying so", "name it in noise"
    if unused := set(variant.noise) - drawn:
        yield f"noise names {', '.join(sorted(unused))}, which no choice draws", "take it out of noise"


def pretrained(subject: Subject) -> Finding:
    """What calls itself lossless is the same function as softmax attention with the same projections."""
    if subject.variant.pretrained != "lossless":
        return not_applicable(f"declared {subject.variant.pretrained}")
    for layer in (1, 0):
        site = subject.site(layer)
        plain = Attention(site, SoftmaxAttention(site))
        draw_initial_values(plain, 0)
        own = Face(subject.host(site, moved=0.0), True)
        given = own.inputs()
        moved = difference(Face(plain.double().eval(), True)(given), own(given))
        if moved > 1e-10:
            raise Refuted(
                f'{own.name}: pretrained="lossless", but with the projections of softmax attention and its own initial '
                f"values it is {moved:.2g} away from it",
                'declare pretrained="lossy"',
            )
    return passed("with initial values of its own it is softmax attention")
