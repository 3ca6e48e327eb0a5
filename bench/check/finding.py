"""What one check found out about one variant."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    status: Status
    """Whether what was declared holds; `not applicable` where nothing was declared that could be tried."""
    found: str
    """What was seen, in one line."""
    fix: str = ""
    """What to do; empty unless it failed."""
    check: str = ""
    """Name of the check."""
    variant: str = ""
    """Label of the variant."""
    seconds: float = 0.0
    """How long it took."""


class Refuted(Exception):
    """A declaration that does not hold: what was seen, and what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.fix = fix


def passed(found: str) -> Finding:
    """Return the finding of a check in which everything held."""
    return Finding("pass", found)


def not_applicable(found: str) -> Finding:
    """Return the finding of a check that had nothing to try."""
    return Finding("not applicable", found)
