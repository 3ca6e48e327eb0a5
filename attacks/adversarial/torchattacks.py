"""The attacks of torchattacks as shifts named `torchattacks:<Name>`, each with its known defects.

Importing this file needs neither torchattacks nor torch; only running an attack does, in `isolation`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..shift import Shift
from .foreign import PREFIX, UNBOUNDED, Norm, foreign

LADDERS: Mapping[Norm, tuple[str, ...]] = {
    "linf": ("0.02", "0.05", "0.1", "0.15", "0.2"),
    "l2": ("0.1", "0.25", "0.5", "0.75", "1"),
    "none": (UNBOUNDED,),
}
"""Severities of a plain run, for images of 8 pixels."""

UNITS: Mapping[Norm, str] = {"linf": "eps (L-inf, pixels)", "l2": "eps (L2, pixels)", "none": "none"}


def torchattacks_shift(name: str) -> Shift:
    """Return the shift that runs an attack of torchattacks, named with or without the prefix.

    Raises ValueError for an unknown name.

    >>> torchattacks_shift("torchattacks:CW").severities
    ('unbounded',)
    """
    bare, row = foreign(name)
    norm = row.norms[0]
    several = len(row.norms) > 1
    return Shift(
        name=PREFIX + bare,
        apply=partial(attacked, bare),
        family="adversarial",
        source=f"torchattacks 3.5.1, class {bare} (arXiv:2010.01950)",
        version=1,
        summary=f"The attack {bare} as torchattacks runs it.",
        severities=LADDERS[norm],
        unit="eps (pixels)" if several else UNITS[norm],
        ladder=bool(row.eps),
        needs_target=True,
        norm=norm,
        knowledge=row.knowledge,
        single_step=row.single_step,
        settings={
            "chunk": 100,
            "arguments": "",
            **({"relative_step": row.relative_step} if row.relative_step else {}),
            **({"norm": norm} if several else {}),
        },
        choices={"norm": row.norms} if several else {},
        chunk_coupled=True,
        warning=row.warning,
    )


def attacked(name: str, *given: Any, **settings: Any) -> tuple[Any, ...]:
    """Run an attack as `isolation.attacked` does, which is imported at the first call."""
    from .isolation import attacked as run

    return run(name, *given, **settings)
