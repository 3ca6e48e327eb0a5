"""What an attention reads of other layers, and what kind of matrix it makes of the values."""

import torch
from torch import Tensor

from ...models.attention import HasLogits
from .face import Face, Inputs, difference
from .finding import Finding, Refuted, not_applicable, passed
from .subject import Subject

TOLERANCE = 1e-9
"""Relative; rounding in float64."""
NEGATIVE = 1e-3
"""An entry below minus this shows that a matrix is signed."""


@torch.no_grad()
def layer_state(subject: Subject) -> Finding:
    """It reads of the first and the previous layer what `layer_state` says, and does without in layer 0."""
    for face in subject.faces(layers=[0]):
        face(face.inputs())
    read = {state for state in ("first", "previous") if any(_reads(face, state) for face in subject.faces(layers=[1]))}
    declared = set(subject.variant.layer_state)
    if undeclared := read - declared:
        raise Refuted(
            f"it reads ctx.{' and ctx.'.join(sorted(undeclared))} without saying so", "declare it in layer_state"
        )
    unread = declared - read
    if unread and subject.by_default and not subject.variant.calibrates:
        raise Refuted(
            f"layer_state declares {', '.join(sorted(unread))}, which moves nothing", "take it out of layer_state"
        )
    return passed(f"reads {', '.join(sorted(read))}" if read else "reads no other layer")


def _reads(face: Face, state: str) -> bool:
    given, other = face.inputs(), face.inputs(1)
    changed = {name: t for name, t in other.leaves.items() if name.partition(".")[0] == state}
    return not torch.equal(face(given), face(given.having(changed)))


@torch.no_grad()
def attention_map(subject: Subject) -> Finding:
    """The matrix on the values is of the declared kind, and `logits`, where there are any, are its logits."""
    kind = subject.variant.attention_map
    faces = [Face(subject.host(subject.site(layer)), False) for layer in (1, 0)]
    for face in faces:
        _softmax_of_logits(face, kind)
    if kind == "implicit":
        return not_applicable("implicit: no fixed matrix acts on the values")
    lowest, off = 0.0, 0.0
    for face in faces:
        given = _spread_out(face.inputs())
        if tuple(given.leaves["v"].shape) != face.shape(len(given.leaves["x"])):
            return not_applicable("the values are not shaped like the outputs")
        lowest = min(lowest, _lowest_entry(face, given))
        ones = given.having({"v": torch.ones_like(given.leaves["v"])})
        off = max(off, float((face(ones) - 1).abs().max()), _outside_hull(face, given))
    if kind in ("row_stochastic", "nonnegative") and lowest < -TOLERANCE:
        raise Refuted(
            f'attention_map="{kind}", but the matrix on the values has an entry of {lowest:.2g}',
            'declare attention_map="signed", or "implicit" where no fixed matrix acts on the values',
        )
    if kind == "row_stochastic" and off > TOLERANCE:
        raise Refuted(
            f'attention_map="row_stochastic", but values of 1 do not come out as 1: off by {off:.2g}',
            'declare attention_map="nonnegative", or make every row add up to 1',
        )
    if kind == "signed" and lowest > -NEGATIVE:
        fit = "row_stochastic" if off <= TOLERANCE else "nonnegative"
        raise Refuted('attention_map="signed", but no entry is negative', f'declare attention_map="{fit}"')
    more = "; its rows add up to 1, row_stochastic may be claimed" if kind == "nonnegative" and off <= TOLERANCE else ""
    return passed(f"{kind}, lowest entry {lowest:.2g}{more}")


def _softmax_of_logits(face: Face, kind: str) -> None:
    core = face.core
    if not isinstance(core, HasLogits):
        return
    if kind != "row_stochastic":
        raise Refuted(
            f'the core has `logits`, but attention_map="{kind}"', "leave out `logits`, or declare row_stochastic"
        )
    given = face.inputs()
    q, k, v = (given.leaves[part] for part in "qkv")
    expected = core.logits(q, k, v, face.context(given)).softmax(-1) @ v
    if (moved := difference(face(given), expected)) > TOLERANCE:
        raise Refuted(
            f"{face.name}: softmax(logits) v is {moved:.2g} off the output", "return the logits that forward uses"
        )


def _spread_out(given: Inputs) -> Inputs:
    """Return inputs with logits that differ, and first values of zero: only the layer's own values count."""
    given = given.changed(lambda name, t: 2 * t)
    return given.having({name: torch.zeros_like(t) for name, t in given.leaves.items() if name == "first.v"})


def _lowest_entry(face: Face, given: Inputs) -> float:
    """Return the lowest output for values that single out one token in each coordinate, over all tokens."""
    v = given.leaves["v"]
    tokens, width = v.shape[-2:]
    lowest = 0.0
    for start in range(0, tokens, width):
        single = torch.zeros_like(v)
        for column, token in enumerate(range(start, min(start + width, tokens))):
            single[..., token, column] = 1
        lowest = min(lowest, float(face(given.having({"v": single})).min()))
    return lowest


def _outside_hull(face: Face, given: Inputs) -> float:
    """Return how far outputs leave the range of the values, coordinate by coordinate."""
    v = given.leaves["v"]
    y: Tensor = face(given)
    low, high = v.amin((1, 2), keepdim=True), v.amax((1, 2), keepdim=True)
    return max(float((low - y).max()), float((y - high).max()), 0.0)
