"""What a user can do wrong, each told in one line that names the fix; a bug of ours stays a plain exception.

AttnbenchError          exit 2
├── UnknownName         a variant, shift, metric, task, recipe, protocol or setting that does not exist
├── BadDeclaration      a file whose declaration cannot be read or whose code cannot be imported
├── BadProtocol         a protocol file that does not say what is meant
├── BadInput            a folder, a checkpoint or an option that cannot be used
└── Incomplete          exit 3: stopped on the way; the same command resumes
"""

import difflib
from collections.abc import Iterable


class AttnbenchError(Exception):
    """A mistake that the user can mend."""

    exit_code = 2


class UnknownName(AttnbenchError):
    """A name that nothing bears."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str) -> None:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        super().__init__(f"unknown {kind} '{name}'{hint} ({where})")


class BadDeclaration(AttnbenchError):
    """A file whose declaration cannot be read or whose code cannot be imported."""


class BadProtocol(AttnbenchError):
    """A protocol file that does not say what is meant."""


class BadInput(AttnbenchError):
    """A folder, a checkpoint or an option that cannot be used."""


class Incomplete(AttnbenchError):
    """Stopped on the way; the same command resumes."""

    exit_code = 3
