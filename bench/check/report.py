"""Runs the checks: `check("mine.py")` returns what they found, one finding a check and variant."""

import random
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..api import added
from ..catalog import PACKAGE, Catalog, open_catalog
from ..error import BadInput, UnknownName
from ..selection import split
from .carrier import attack, checkpointing, compilation, training, weights
from .cost import memory, parity
from .declaration import declaration, pretrained
from .finding import Finding, Refuted, not_applicable
from .gradient import extremes, gradient_paths, parameters
from .layer import attention_map, layer_state
from .sample import batch, determinism
from .shape import shapes
from .subject import Subject
from .token import causality, mask, permutation

CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    declaration,
    pretrained,
    shapes,
    determinism,
    parameters,
    gradient_paths,
    extremes,
    batch,
    permutation,
    causality,
    mask,
    layer_state,
    attention_map,
    parity,
    memory,
    checkpointing,
    compilation,
    weights,
    training,
    attack,
)
NAMES = tuple(check.__name__ for check in CHECKS)
NEED_REPEATS = (
    gradient_paths, batch, permutation, causality, mask, layer_state, checkpointing, compilation, weights
)  # fmt: skip
"""Checks that compare two calls: they say nothing about what differs between equal ones."""


def check(*variants: str, only: Iterable[str] = (), skip: Iterable[str] = ()) -> list[Finding]:
    """Check variants, named as on the command line: `elliptical(scaling=mean)`, `./mine.py`, `all`.

    `only` and `skip` name checks; `compilation` takes longest. Raises AttnbenchError where a name means nothing.
    """
    names = chosen(only, skip)
    return [finding for subject in subjects(open_catalog(), variants) for finding in examined(subject, names)]


def chosen(only: Iterable[str], skip: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the checks that are left, in order; one that does not exist raises UnknownName."""
    wanted, unwanted = ([name for text in texts for name in split(text)] for texts in (only, skip))
    for name in (*wanted, *unwanted):
        if name not in NAMES:
            raise UnknownName("check", name, NAMES, f"the checks are {', '.join(NAMES)}")
    left = tuple(name for name in NAMES if (not wanted or name in wanted) and name not in unwanted)
    if not left:
        raise BadInput("no check is left; give fewer names to --skip")
    return left


def subjects(catalog: Catalog, variants: Sequence[str]) -> list[Subject]:
    """Return what is to be checked; a whole network raises BadInput."""
    found: dict[str, Subject] = {}
    for name in added(catalog, variants):
        entry = catalog.variant(name)
        if entry.value.builds != "core":
            raise BadInput(f"'{entry.label}' is a whole network; what is checked is an attention variant")
        origin = catalog.found["variant"][entry.value.name].origin
        builtin = origin.module.partition(".")[0] == PACKAGE
        found.setdefault(entry.label, Subject(entry, origin.path, builtin))
    return list(found.values())


def examined(subject: Subject, names: Iterable[str] = NAMES) -> Iterator[Finding]:
    """Yield the findings of some checks; one that breaks down has failed, and the others go on."""
    wanted = set(names)
    repeats = True
    for function in CHECKS:
        if function.__name__ not in wanted:
            continue
        started = time.perf_counter()
        if not repeats and function in NEED_REPEATS:
            finding = not_applicable(f"it compares two calls, and {determinism.__name__} fails: mend that first")
        else:
            with _undisturbed():
                finding = _outcome(function, subject)
        repeats &= function is not determinism or finding.status != "fail"
        seconds = time.perf_counter() - started
        yield replace(finding, check=function.__name__, variant=subject.entry.label, seconds=seconds)


def _outcome(function: Callable[[Subject], Finding], subject: Subject) -> Finding:
    try:
        return function(subject)
    except Refuted as refuted:
        return Finding("fail", refuted.found, refuted.fix)
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == subject.origin]
        where = f", line {lines[-1]} of {Path(subject.origin).name}" if lines else ""
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        return Finding("fail", f"{type(error).__name__}: {first}{where}", "mend what raises it in the core")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put the global generators back, whatever a check or a core did to them."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(arrays)
