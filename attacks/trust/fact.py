"""What is measured about a model and an attack, as plain numbers from which verdicts are derived later."""

from typing import Any

from jaxtyping import Bool
from torch import Tensor

Facts = dict[str, Any]
"""Ready for strict JSON: whole numbers, finite numbers, text, and lists and mappings of these."""


def counted(found: Bool[Tensor, " batch"]) -> Facts:
    """Return for how many samples something holds: `count`, `n`.

    >>> import torch
    >>> counted(torch.tensor([True, False, True]))
    {'count': 2, 'n': 3}
    """
    return {"count": int(found.sum()), "n": len(found)}


def paired(weaker: Bool[Tensor, " batch"], stronger: Bool[Tensor, " batch"]) -> Facts:
    """Return on how many samples one of two attacks succeeds alone: `weaker_only`, `stronger_only`, `n`.

    The stronger attack is the one that ought to be.

    >>> import torch
    >>> paired(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    {'weaker_only': 1, 'stronger_only': 0, 'n': 3}
    """
    return {
        "weaker_only": int((weaker & ~stronger).sum()),
        "stronger_only": int((stronger & ~weaker).sum()),
        "n": len(weaker),
    }


def absent(reason: str) -> Facts:
    """Return why something was not measured: `not_applicable`."""
    return {"not_applicable": reason}
