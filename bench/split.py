"""The two sides of one fold of a task."""

from typing import NamedTuple

from ..attacks.samples import Samples


class Split(NamedTuple):
    """The two sides of one fold."""

    train: Samples
    """What networks are trained and calibrated on."""
    test: Samples
    """What every number is measured on."""
