"""The lines of a board and the pieces of work that they ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..models.variant import Variant
from .catalog import Entry
from .recipe import Recipe

Role = Literal["variant", "control", "a/a"]
"""Why a row is there: it is judged, it is a control for others, or it shows the noise floor."""


class Row(NamedTuple):
    """One line of the board."""

    label: str
    """Unique name."""
    variant: Entry[Variant]
    """What it is."""
    role: Role
    """Why it is there."""
    seed_offset: int
    """Added to the protocol's training seeds."""
    recipe: Entry[Recipe]
    """How its networks are trained; rows of one recipe form a track of the board."""

    def seeds(self, training_seeds: Sequence[int]) -> list[int]:
        """Return the seeds of the row's networks; one that the user built has no training, so it stands once."""
        if self.variant.value.builds == "network":
            return [0]
        return [seed + self.seed_offset for seed in training_seeds]


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work."""

    kind: Literal["train", "calibrate", "cell"]
    """What is done."""
    key: str
    """sha256 of the specification."""
    specification: Mapping[str, Any]
    """Everything that can change its numbers, and nothing else."""
    label: str
    """Row that it belongs to."""
    what: str
    """What it is, in a few words."""
    model: str
    """Key of the training that it belongs to."""
    fold: int
    """Fold of the task."""
    training_seed: int
    """Seed of the training."""
    needs: tuple[str, ...] = ()
    """Keys of the nodes that must be done before."""
    shift: str = ""
    """Label of the shift, for cells; `cost` for costs."""
    family: str = ""
    """Family of the shift, for cells."""
    severities: tuple[str, ...] = ()
    """Severities, for cells."""
    unit: str = ""
    """Unit of the severities, for cells."""
    swap: str = ""
    """Label of the row whose attention works on these weights, for cells of a mechanism swap."""
    norm: str = ""
    """Ball of the shift, for cells."""
    knowledge: str = ""
    """What the shift knows of the model, for cells."""
    convention: str = ""
    """Whose way of measuring it reproduces, for cells."""
    minimum_norm: bool = False
    """Whether the shift looks for the smallest perturbation, for cells."""
    apart: bool = False
    """Whether it needs other networks than its own, so that it has to wait for them."""
    control: bool = False
    """Whether it is the control of that swap: the network's own attention, its logits moved as far at random."""

    @property
    def group(self) -> str:
        """Name of the pieces that one worker does together: all of one model but those that wait for other models."""
        return f"{self.model}+" if self.apart else self.model
