"""Measures layers against fused softmax, and fused elliptical attention against its explicit form."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...models.attention import QKV, Context
from ...models.site import Site
from ...models.variant import Variant
from ...models.variants.elliptical import ELLIPTICAL
from ...models.variants.softmax import SOFTMAX
from ..api import added
from ..catalog import Catalog, Entry
from ..error import BadInput
from .comparison import Comparison, Quantity
from .explicit_elliptical import explicit_elliptical
from .goal import EXPLICIT, EXPLICIT_FORM, FUSED, TIMED
from .layer import DEPTH, DIM, HEAD_DIM, HEADS, LAYER, TimedLayer, unfit
from .live_memory import live_memory
from .paired_time import LEAST_ROUNDS, Call, Pair, Times, Turn, ratio, schedule, timed

SEED = 0
"""Of the order in which the calls run."""
Say = Callable[[str], None]
SLOW = 10
"""Times of the reference's time from which the fewest rounds are enough: nobody needs such a ratio to a percent."""
LONGEST = 2.0
"""Seconds of a call that is made once and not again."""
SAMPLES = 4
"""Of attention alone: the maps of one sample may stay in the processor's cache, those of a batch do not."""


class Ready(NamedTuple):
    """A pair that is to be timed, and what is known of it already."""

    known: Comparison
    """The comparison without its numbers."""
    pair: Pair
    """What to time."""
    rounds: int
    """How often."""


def chosen(catalog: Catalog, names: Sequence[str]) -> list[Entry[Variant]]:
    """Return the variants asked for, all that are layers without names; a network by name raises BadInput."""
    asked = list(names) or ["all"]
    entries = {entry.label: entry for entry in map(catalog.variant, added(catalog, asked))}
    for entry in entries.values():
        if entry.value.builds == "network" and asked != ["all"]:
            raise BadInput(f"'{entry.label}' is a whole network; what is timed is the attention layer of a variant")
    return [entry for entry in entries.values() if entry.value.builds != "network"]


def layers(entries: Iterable[Entry[Variant]], tokens: int, rounds: int, say: Say) -> list[Comparison]:
    """Compare the layers of some variants with fused softmax, all in one run of rounds; times, then memory."""
    found: list[Comparison] = []
    ready: list[Ready] = []
    softmax = TimedLayer(SOFTMAX, {}, tokens)
    softmax()
    least = live_memory(softmax)
    for entry in entries:
        blank = Comparison(entry.label, FUSED, TIMED, tokens)
        say(f"{entry.label}, {tokens} tokens: memory")
        if reason := unfit(entry.value, tokens):
            found.append(replace(blank, status="not applicable", reason=reason))
            continue
        try:
            layer = TimedLayer(entry.value, entry.settings, tokens)
            ready.append(warmed(blank, Pair(layer, softmax), rounds))
            found.append(counted(replace(blank, quantity="live memory"), live_memory(layer), least))
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            found.append(replace(blank, status="failed", reason=f"{type(error).__name__}: {first}"))
    return [*clocked(ready, f"{tokens} tokens", say), *found]


def warmed(blank: Comparison, pair: Pair, rounds: int) -> Ready:
    """Run a pair and say how many more rounds it is worth; what takes very long has had its only one."""
    pair.reference()
    turn = [[Turn(0, reference_first=True)]]
    (times,) = timed([pair], turn)
    if times.subject[0] > LONGEST:
        return Ready(with_times(blank, times), pair, 0)
    (times,) = timed([pair], turn)
    slow = times.subject[0] > SLOW * times.reference[0]
    return Ready(blank, pair, LEAST_ROUNDS if slow else rounds)


def counted(blank: Comparison, subject: int, reference: int) -> Comparison:
    """Return a comparison of two counts, which need no interval."""
    share, costs = subject / reference, (float(subject), float(reference))
    return replace(blank, ratio=share, low=share, high=share, subject_cost=costs[0], reference_cost=costs[1])


def clocked(ready: Sequence[Ready], where: str, say: Say) -> list[Comparison]:
    """Time pairs side by side and return the comparisons with their numbers; pairs of 0 rounds have theirs already."""
    found = [Times([], []) for _ in ready]
    turns = schedule([r.rounds for r in ready], SEED)
    for number, own in enumerate(turns):
        say(f"{where}: round {number + 1} of {len(turns)}")
        for times, new in zip(found, timed([r.pair for r in ready], [own]), strict=True):
            times.subject.extend(new.subject)
            times.reference.extend(new.reference)
    return [with_times(r.known, times) if r.rounds else r.known for r, times in zip(ready, found, strict=True)]


def with_times(blank: Comparison, times: Times) -> Comparison:
    """Return a comparison of two lists of seconds; one second each says nothing about its spread."""
    subject, reference = (float(np.median(seconds)) for seconds in times)
    rounds = len(times.subject)
    known = replace(blank, rounds=rounds, subject_cost=subject, reference_cost=reference, ratio=subject / reference)
    if rounds == 1:
        return known
    _, low, high = ratio(times)
    return replace(known, low=low, high=high)


class Forms(NamedTuple):
    """One function computed in two ways, attention alone."""

    fused: Callable[[], Tensor]
    """Ours."""
    explicit: Callable[[], Tensor]
    """In explicit matrices."""
    inputs: list[Tensor]
    """What gradients are taken by."""
    upstream: Tensor
    """Gradient by the output."""


def elliptical_forms(tokens: int) -> Forms:
    """Return elliptical attention over a few samples, in both forms."""
    generator = torch.Generator().manual_seed(SEED)
    q, k, v, before, upstream = (torch.randn(SAMPLES, HEADS, tokens, HEAD_DIM, generator=generator) for _ in range(5))
    inputs = [t.requires_grad_() for t in (q, k, v)]
    site = Site(LAYER, DEPTH, DIM, HEADS, HEAD_DIM, tokens, 0, None, causal=False, scale=HEAD_DIM**-0.5)
    core = ELLIPTICAL.core(site, **ELLIPTICAL.settings)
    stream = before.transpose(1, 2).flatten(2)
    ctx = Context(stream, stream, None, None, QKV(before, before, before), {})
    explicit = partial(explicit_elliptical, q, k, v, before, site.scale)
    return Forms(partial(core, q, k, v, ctx), explicit, inputs, upstream)


FORMS: Mapping[str, Callable[[int], Forms]] = {ELLIPTICAL.name: elliptical_forms}
"""Variants whose authors released explicit matrices, by label."""


def compared_forms(label: str, tokens: int, rounds: int, say: Say) -> list[Comparison]:
    """Compare a variant's fused form with its explicit one: forward alone, with the backward pass, and in memory."""
    forms = FORMS[label](tokens)
    calls: Mapping[Quantity, Callable[[Callable[[], Tensor]], Call]] = {
        "forward": lambda form: partial(_without_gradient, form),
        TIMED: lambda form: partial(_with_gradient, form, forms.inputs, forms.upstream),
    }
    ready = []
    for quantity, call in calls.items():
        pair = Pair(call(forms.fused), call(forms.explicit))
        ready.append(warmed(Comparison(label, EXPLICIT_FORM, quantity, tokens), pair, rounds))
    subject, reference = map(live_memory, ready[-1].pair)
    memory = counted(replace(ready[-1].known, quantity="live memory"), subject, reference)
    return [*clocked(ready, f"{tokens} tokens", say), memory]


def _without_gradient(form: Callable[[], Tensor]) -> object:
    with torch.no_grad():
        return form()


def _with_gradient(form: Callable[[], Tensor], inputs: list[Tensor], upstream: Tensor) -> object:
    return torch.autograd.grad(form(), inputs, upstream)


def measured(
    entries: Sequence[Entry[Variant]], tokens: Iterable[int], rounds: int, say: Say
) -> Iterator[list[Comparison]]:
    """Yield the comparisons of each number of tokens: layers, then explicit forms where there is a goal for them."""
    for count in tokens:
        found = layers(entries, count, rounds, say)
        for entry in entries:
            if count in EXPLICIT and entry.label in FORMS:
                found += compared_forms(entry.label, count, rounds, say)
        yield found
