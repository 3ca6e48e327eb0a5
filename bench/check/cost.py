"""What a variant costs beside softmax attention: parameters, operations, and how its memory grows with the tokens."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ...metrics.cost import flops, kept_bytes
from ...models.variants.softmax import SOFTMAX
from ...models.vit import build
from ..cell import Bound
from .face import Face, gradients
from .finding import Finding, Refuted, passed
from .subject import Size, Subject

TOKENS = 192
"""Patches of the smaller of two layers, half of the larger: so many that tokens x tokens outgrows the rest."""
ROWS = 12
"""Rows of their grids."""
LINEAR = 2.5
"""Largest growth under twice the tokens that passes for linear; quadratic is 4."""


def parity(subject: Subject) -> Finding:
    """Parameters beyond softmax attention's are counted and told; operations are counted."""
    variant = subject.variant
    model, samples = subject.network(), subject.samples()
    plain = build(SOFTMAX.core, {}, subject.shape._replace(extra_tokens=0), 0)
    extra = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    bound = Bound(model, samples.ids)
    ratio = flops(bound, samples.pixels) / flops(plain, samples.pixels)
    told = variant.extra_parameters
    if extra > 0 and (told == "none" or (told.startswith("none") and subject.by_default)):
        raise Refuted(
            f'extra_parameters="{told}", but there are {extra} more than softmax attention has',
            "say what is learned in extra_parameters",
        )
    if extra <= 0 and not re.search(r"\bnone\b", told) and subject.by_default and not variant.parameters_of:
        raise Refuted(
            f'extra_parameters="{told}", but there are {extra:+d} beside softmax attention',
            'declare extra_parameters="none"',
        )
    return passed(
        f"{extra:+d} parameters and {ratio:.3f} x the operations of softmax, in a network of {_told(subject)}"
    )


def _told(subject: Subject) -> str:
    shape = subject.shape
    return f"{(shape.image // shape.patch) ** 2 + shape.extra_tokens} tokens, width {shape.dim}"


class Use(NamedTuple):
    """What one forward and backward pass takes."""

    kept: float
    """Bytes kept for the backward pass."""
    largest: float
    """Bytes of the largest tensor that any operation makes."""
    operations: float
    """Floating-point operations of matrix products in the forward pass."""


WORDS = {
    "kept": "the bytes kept for the backward pass",
    "largest": "the largest tensor",
    "operations": "the number of operations",
}
BOUNDED: Mapping[str, tuple[str, ...]] = {
    "fused": ("kept", "largest"),
    "linear": ("kept", "largest", "operations"),
    "matrix": (),
}
"""What has to grow linearly with the tokens, by `cost`."""


def memory(subject: Subject) -> Finding:
    """Memory grows with the tokens as `cost` says: linearly where it is fused or linear."""
    cost = subject.variant.cost
    worst = 1.0
    for small, large in zip(*(subject.every_face(size=s, dtype=torch.float32) for s in _sizes(subject)), strict=True):
        less, more = use(small)._asdict(), use(large)._asdict()
        grown = {what: more[what] / less[what] if less[what] else 1.0 for what in WORDS}
        worst = max(worst, grown["kept"], grown["largest"])
        for what in BOUNDED[cost]:
            if grown[what] > LINEAR:
                raise Refuted(
                    f'{small.name}: cost="{cost}", but twice the tokens multiply {WORDS[what]} by {grown[what]:.1f}',
                    'call softmax_attention instead of forming tokens x tokens, or declare cost="matrix"',
                )
    note = "" if BOUNDED[cost] or worst > LINEAR else "; nothing of tokens x tokens was seen"
    return passed(f"{cost}: twice the tokens take {worst:.1f} x the memory{note}")


def _sizes(subject: Subject) -> tuple[Size, Size]:
    prefix = subject.sizes[0].prefix_tokens
    columns = -(-max(TOKENS, subject.variant.minimum_tokens) // ROWS)
    grid = subject.variant.needs_grid
    small, large = (Size(ROWS * n + prefix, prefix, (ROWS, n) if grid else None) for n in (columns, 2 * columns))
    return small, large


def use(face: Face) -> Use:
    """Measure one pass over one sample."""
    given = face.inputs(batch=1).requiring_grad()
    with _Largest() as seen:
        made: list[Tensor] = []
        kept = kept_bytes(lambda: made.append(face(given)))
        gradients(made[0], given, face)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        face(given)
    return Use(float(kept), float(seen.bytes), float(counter.get_total_flops()))


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what every operation returns, backward pass included; views count as what they show a part of."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made
