"""Weights that a user brings: `NAME@SEED=file.safetensors` stands for a training that is not done here."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..results.store import digest
from .error import BadInput

FORM = "write NAME@SEED=FILE, or NAME@SEED/FOLD=FILE where the protocol has several folds"


class Given(NamedTuple):
    """One file of weights and the network that it is for."""

    row: str
    """Label of the row."""
    seed: int
    """Training seed that it stands for."""
    fold: int
    """Fold on whose training side the weights were trained."""
    path: str
    """The file."""
    sha256: str
    """Digest of the file, which enters the keys of everything that is measured on it."""


def read_given(texts: Iterable[str], folds: Sequence[int]) -> list[Given]:
    """Read what `--weights` says; a file that is not there raises BadInput.

    A network must not be tested on samples that it was trained on, so the fold is said where there are several.
    """
    found = []
    for text in texts:
        match = re.fullmatch(r"(.+)@(\d+)(?:/(\d+))?=(.+\.safetensors)", text, flags=re.DOTALL)
        if match is None:
            raise BadInput(f"cannot read --weights '{text}'; {FORM}, with a FILE that ends in .safetensors")
        if match[3] is None and len(folds) > 1:
            raise BadInput(
                f"--weights '{text}': the protocol has the folds {', '.join(map(str, folds))}, and weights trained for "
                f"one saw the test samples of the others; say which one they are for: {match[1]}@{match[2]}/FOLD=FILE"
            )
        fold = folds[0] if match[3] is None else int(match[3])
        path = str(Path(match[4]).resolve())
        found.append(Given(match[1], int(match[2]), fold, path, file_digest(match[4])))
    return found


def file_digest(path: str) -> str:
    """Return the sha256 of a file of weights; one that cannot be read raises BadInput."""
    try:
        return digest(Path(path).read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read the weights {path} ({error.strerror}); check the path") from None


def unmatched(given: Iterable[Given], networks: Iterable[tuple[str, int, int]]) -> None:
    """Raise BadInput for weights that belong to no network of the plan, `(label, seed, fold)` each."""
    known = sorted(set(networks))
    for weights in given:
        if (weights.row, weights.seed, weights.fold) not in known:
            names = ", ".join(f"{label}@{seed}/{fold}" for label, seed, fold in known)
            raise BadInput(f"--weights {weights.row}@{weights.seed}/{weights.fold}: no such network; there are {names}")
