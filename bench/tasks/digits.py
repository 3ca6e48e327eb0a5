"""Real handwritten digits that need no download: 1,797 grey images of 8 x 8 pixels, split by blocks of samples."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from ...attacks.samples import Samples
from ..split import Split
from ..task import Task


def load(fold: int, folder: Path | str | None = None) -> Split:
    """Return one fold: block `fold` of five blocks of consecutive samples is the test side, the other four train.

    Consecutive samples tend to share a writer, so blocks keep most writers on one side; random splits would leak their
    style. `folder` is not needed, since scikit-learn carries the data. Raises ValueError for an unknown fold, and where
    the installed data differs from the declared digest.
    """
    from sklearn.datasets import load_digits

    if fold not in range(DIGITS.folds):
        raise ValueError(f"digits has no fold {fold}; choose from 0 to {DIGITS.folds - 1}")
    data = load_digits()
    images, labels = data.images.astype(np.uint8), data.target.astype(np.uint8)
    check_digest(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())
    samples = Samples(
        pixels=torch.from_numpy(images)[:, None].float() / 16,
        labels=torch.from_numpy(labels).long(),
        ids=tuple(f"digits-{row:04d}" for row in range(len(labels))),
    )
    start, stop = (len(labels) * side // DIGITS.folds for side in (fold, fold + 1))
    rows = range(len(labels))
    return Split(train=samples.rows([*rows[:start], *rows[stop:]]), test=samples.rows(rows[start:stop]))


def check_digest(found: str) -> None:
    """Refuse data that is not what the declaration names: numbers measured on it could not be compared."""
    if found != DIGITS.digest:
        raise ValueError(
            f"digits should have sha256 {DIGITS.digest}, but the installed scikit-learn carries {found}; "
            "reinstall scikit-learn from an official wheel"
        )


DIGITS = Task(
    name="digits",
    load=load,
    version=1,
    digest="87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    folds=5,
    classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    source="Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI, CC BY 4.0), its test part, "
    "carried by scikit-learn",
    summary="1,797 handwritten digits of 8 x 8 pixels with 17 grey levels; fold k tests on the k-th fifth of the "
    "samples, in their order, and trains on the rest.",
    correct="The largest logit is that of the written digit.",
    chance=0.1,
    pixels={"image": 8, "channels": 1, "mean": 0.3053, "std": 0.376},
)
