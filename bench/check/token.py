"""What a token may depend on: not on its place, not on later tokens, not on masked ones, as far as that is declared."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...models.variant import Setting
from .face import Face, Inputs, difference, steepest_leak
from .finding import Finding, Refuted, not_applicable, passed
from .subject import Subject

TOLERANCE = 1e-9
"""Relative; rounding in float64."""
TRIES = 7
"""Places at which the future is changed."""


def permutation(subject: Subject) -> Finding:
    """Permuting the tokens permutes the outputs, exactly where `equivariant` says so."""
    moved: dict[str, float] = {}
    for face in subject.faces():
        order = torch.randperm(face.site.tokens, generator=torch.Generator().manual_seed(1))
        given = face.inputs()
        permuted = given.changed(lambda name, t, order=order: t[..., order, :])  # type: ignore[misc]
        moved[face.name] = difference(face(given)[..., order, :], face(permuted))
    worst = max(moved, key=moved.__getitem__)
    holds = moved[worst] <= TOLERANCE
    if subject.variant.equivariant and not holds:
        raise Refuted(
            f"{worst}: permuting the tokens does not permute the outputs, they differ by {moved[worst]:.2g}",
            "treat all tokens alike, or declare equivariant=False",
        )
    if subject.variant.equivariant:
        return passed("permuting the tokens permutes the outputs")
    if holds and subject.by_default:
        return passed("permuting the tokens permutes the outputs, although equivariant=False; it may be claimed")
    return passed("a token's place matters, as declared")


def causality(subject: Subject) -> Finding:
    """At a causal site nothing before a change moves and no gradient flows back; what has no causal form refuses."""
    refusal = _refusal(subject, {})
    if subject.variant.causal == "no":
        if not refusal:
            raise Refuted(
                'causal="no", but a causal site is accepted',
                "raise a ValueError in __init__ where site.causal is True and say what to use instead",
            )
        if "causal" not in refusal:
            raise Refuted(
                f"it refuses a causal site without saying why: {refusal}",
                "name the variant, say `causal` and what to do in the message of the ValueError",
            )
        return passed("refuses a causal site, as declared")
    chosen: Mapping[str, Setting] = {}
    if refusal:
        if not subject.by_default:
            return not_applicable(f"refuses a causal site with these settings: {refusal}")
        single = ({name: value} for name, allowed in subject.variant.choices.items() for value in allowed)
        willing = next((settings for settings in single if not _refusal(subject, settings)), None)
        if willing is None:
            raise Refuted(f"it refuses a causal site: {refusal}", 'declare causal="no"')
        chosen = willing
    for face in subject.faces(chosen, causal=True):
        _strictly_causal(face)
    only = f"; only with {', '.join(f'{name}={value}' for name, value in chosen.items())}" if chosen else ""
    return passed(f"no token before a change moves, and none has a gradient by what comes later{only}")


def _refusal(subject: Subject, settings: Mapping[str, Setting]) -> str:
    """Return why a causal site is refused, an empty string where it is not."""
    try:
        subject.faces(settings, causal=True)
    except ValueError as error:
        return str(error) or "no message"
    return ""


def _strictly_causal(face: Face) -> None:
    given, other = face.inputs(), face.inputs(1)
    tokens = face.site.tokens
    y = face(given)
    for t in sorted({*range(1, tokens, max(tokens // TRIES, 1)), tokens - 1}):

        def spliced(name: str, leaf: Tensor, t: int = t) -> Tensor:
            return torch.cat((leaf[..., :t, :], other.leaves[name][..., t:, :]), -2)

        changed = face(given.changed(spliced))
        if (moved := difference(y[..., :t, :], changed[..., :t, :])) > TOLERANCE:
            culprit = _culprit(face, given, other, t)
            raise Refuted(
                f"{face.name}: changing token {t} and later ones moves earlier outputs by {moved:.2g}{culprit}",
                "honour site.causal: read the tokens up to each query only, in every sum and mean over tokens",
            )
    half = max(tokens // 2, 1)
    name, size = steepest_leak(face, given, lambda y: y[..., :half, :], lambda t: t[..., half:, :])
    if size > TOLERANCE:
        raise Refuted(
            f"{face.name}: outputs before token {half} have a gradient of {size:.2g} by later tokens of {name}",
            "honour site.causal in the backward pass too",
        )


def _culprit(face: Face, given: Inputs, other: Inputs, t: int) -> str:
    """Return through which leaves alone the future leaks."""
    y, through = face(given), []
    for name, leaf in given.leaves.items():
        alone = given.having({name: torch.cat((leaf[..., :t, :], other.leaves[name][..., t:, :]), -2)})
        if difference(y[..., :t, :], face(alone)[..., :t, :]) > TOLERANCE:
            through.append(name)
    return f", through {', '.join(through)}" if through else ""


def mask(subject: Subject) -> Finding:
    """What masked tokens hold moves no real token's output, nor has that a gradient by them."""
    refusals = []
    faces = subject.every_face()
    for face in faces:
        given = face.inputs(mask=True)
        try:
            y = face(given)
        except ValueError as error:
            if "mask" not in str(error):
                raise
            refusals.append(f"{face.name} refuses masked tokens: {error}")
            continue
        if not bool(y.isfinite().all()):
            raise Refuted(f"{face.name}: masked tokens make outputs that are not finite", MEND_MASK)
        _blind_to_masked(face, given)
    if len(refusals) == len(faces):
        return not_applicable(refusals[0])
    return passed("real tokens do not depend on masked ones" + (f"; {refusals[0]}" if refusals else ""))


MEND_MASK = "leave the tokens out where ctx.mask is False, or refuse masks with a ValueError that says `mask`"


def _blind_to_masked(face: Face, given: Inputs) -> None:
    assert given.mask is not None
    real, other = given.mask, face.inputs(1)

    def only(shown: Tensor, t: Tensor) -> Tensor:
        return t * (shown[:, None, :, None] if t.dim() == 4 else shown[:, :, None])

    doubtful = given.changed(lambda name, t: only(real, t) + 10 * only(~real, other.leaves[name]))
    moved = difference(only(real, face(given)), only(real, face(doubtful)))
    if moved > TOLERANCE:
        raise Refuted(f"{face.name}: what masked tokens hold moves the outputs of real ones by {moved:.2g}", MEND_MASK)
    name, size = steepest_leak(face, given, lambda y: only(real, y), lambda t: only(~real, t))
    if size > TOLERANCE:
        raise Refuted(
            f"{face.name}: real tokens' outputs have a gradient of {size:.2g} by masked tokens of {name}", MEND_MASK
        )
