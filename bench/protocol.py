"""A protocol: one TOML file that fixes tasks, recipes, shifts, severities, metrics, seeds and statistics."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .error import BadProtocol, UnknownName

FOLDER = Path(__file__).resolve().parent / "protocols"


class Section(BaseModel):
    """A part of a protocol; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Backbone(Section):
    """The network that carries every variant."""

    name: str = "vit"
    """Which backbone."""
    dim: int = Field(default=64, ge=1)
    """Width of the stream."""
    depth: int = Field(default=4, ge=1)
    """Number of blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    patch: int = Field(default=2, ge=1)
    """Side of a patch in pixels."""
    mlp_ratio: float = Field(default=2.0, gt=0)
    """Hidden width of the MLP over `dim`."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """DropPath of the last block."""

    @model_validator(mode="after")
    def _divides(self) -> "Backbone":
        if self.name != "vit":
            raise ValueError(f"backbone '{self.name}' is unknown; the backbones are: vit")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class ShiftLine(Section):
    """One shift with its severities."""

    shift: str
    """`name` or `name(setting=value,...)`."""
    severities: tuple[str, ...] = ()
    """Empty for the shift's own."""

    @field_validator("severities", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(v, (int, float)) for v in value):
            raise ValueError(
                'severities are written as text, as in ["8/255", "0.1"], so that they enter keys as they are'
            )
        return value


class Statistics(Section):
    """How numbers are turned into statements."""

    baseline: str = "softmax"
    """Row that the others are compared with."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of every interval."""


class Protocol(Section):
    """Everything that is fixed before anything runs."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Lower snake case."""
    version: int = Field(ge=0)
    """0 is a draft and cannot be published."""
    question: str
    """What it is meant to answer."""
    task: str
    """Task."""
    folds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Folds of the task that are used, each with networks of its own."""
    training_seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the initial values and of the data order."""
    noise_seed: int = 0
    """Seed of every shift's noise."""
    recipe: str
    """How networks are trained."""
    variants: tuple[str, ...] = Field(min_length=1)
    """Rows of the board."""
    aa_row: str = ""
    """A row that is trained a second time from other seeds, to show the noise floor."""
    metrics: tuple[str, ...] = ("accuracy",)
    """What is measured in every cell."""
    costs: tuple[str, ...] = ()
    """What is measured on the model itself."""
    limit: int | None = Field(default=None, ge=1)
    """Number of test samples; None for all."""
    backbone: Backbone = Backbone()
    """The network."""
    shifts: tuple[ShiftLine, ...] = ()
    """What happens to the inputs, beside nothing (`clean` is always measured)."""
    statistics: Statistics = Statistics()
    """How numbers are turned into statements."""

    @property
    def title(self) -> str:
        """Name and version, `smoke-1`."""
        return f"{self.name}-{self.version}"

    @property
    def draft(self) -> bool:
        """Whether results under it may be published."""
        return self.version == 0


def _known_keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _fault(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section: type[BaseModel] = Protocol
        for part, inner in (("backbone", Backbone), ("shifts", ShiftLine), ("statistics", Statistics)):
            section = inner if first["loc"][0] == part and len(first["loc"]) > 1 else section
        known = _known_keys(section)
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; the keys here are {', '.join(known)}"
        return f"unknown key '{where}'{hint}"
    if first["type"] == "missing":
        return f"the key '{where}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def read_protocol(path: Path) -> Protocol:
    """Read a protocol file; a fault raises BadProtocol in one line."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadProtocol(f"cannot read the protocol {path} ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadProtocol(f"{path}: not valid TOML ({error})") from None
    try:
        return Protocol.model_validate(document)
    except ValidationError as error:
        raise BadProtocol(f"{path}: {_fault(error)}") from None


def builtin_protocols() -> dict[str, Path]:
    """Return the built-in protocol files by `name-version`, sorted."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find_protocol(text: str) -> Protocol:
    """Return the protocol that a path, a `name-version` or a name (its highest version) says."""
    if text.endswith(".toml") or "/" in text:
        return read_protocol(Path(text))
    known = builtin_protocols()
    if text in known:
        return read_protocol(known[text])
    versions = [stem for stem in known if stem.rpartition("-")[0] == text]
    if not versions:
        names = [*known, *{stem.rpartition("-")[0] for stem in known}]
        raise UnknownName("protocol", text, names, "attnbench ls protocols, or the path of a .toml file")
    return read_protocol(known[max(versions, key=lambda stem: int(stem.rpartition("-")[2]))])
