"""A protocol: one TOML file that fixes tasks, recipes, shifts, severities, metrics, seeds and statistics."""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .error import BadInput, BadProtocol, UnknownName
from .selection import parsed

FOLDER = Path(__file__).resolve().parent / "protocols"


class Section(BaseModel):
    """A part of a protocol; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: Any) -> Any:
        """Refuse true and false, which would count as 1 and 0, where no truth value is asked for."""
        declared = cls.model_fields[str(info.field_name)]
        given = value if isinstance(value, (list, tuple)) else [value]
        wrong = next((v for v in given if isinstance(v, bool)), None)
        if wrong is None or declared.annotation is bool:
            return value
        default = declared.default
        like = f", a value like {default} is expected" if isinstance(default, (int, float)) else ""
        raise ValueError(f"{str(wrong).lower()} is no value here{like}")


OURS = {"name", "dim", "depth", "heads", "patch", "mlp_ratio", "drop_path"}
"""Keys of our own backbone."""
THEIRS = {"name", "options", "pretrained", "head", "resampling"}
"""Keys of a timm model, beside the file of weights, which enters results by its digest."""


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
    options: dict[str, str | int | float | bool] = {}
    """For a timm model: what is passed to it (`depth`, `embed_dim`, `patch_size`, ...)."""
    weights: str = ""
    """For a timm model: a safetensors file that it starts from."""
    pretrained: bool = False
    """For a timm model: whether it starts from the weights that timm fetches."""
    head: Literal["keep", "new"] = "keep"
    """For a timm model with weights: whether their head is kept or drawn anew."""
    resampling: Literal["", "bicubic", "antialiased", "dinov2"] = ""
    """For a timm model with weights of another grid: how their position table is brought to this one."""

    @property
    def timm(self) -> str:
        """Name of the timm model, empty for our own backbone."""
        return self.name.removeprefix("timm:") if self.name.startswith("timm:") else ""

    def patches(self, image: int) -> int | None:
        """Return the number of patches of an image, None where the name does not say it; raises ValueError."""
        found = re.search(r"patch(\d+)", self.timm)
        size = self.options.get("patch_size", found[1] if found else None) if self.timm else self.patch
        if size is None:
            return None
        if image % int(size):
            raise ValueError(f"images of {image} px cannot be cut into patches of {size} px; choose another patch")
        return (image // int(size)) ** 2

    @model_validator(mode="after")
    def _fits(self) -> "Backbone":
        ours = (OURS - {"name"}) & self.model_fields_set
        theirs = (THEIRS - {"name"} | {"weights"}) & self.model_fields_set
        if self.name != "vit" and not self.timm:
            raise ValueError(f"backbone '{self.name}' is unknown; the backbones are: vit, timm:NAME")
        if ours and self.timm:
            raise ValueError(f"{sorted(ours)[0]} is a key of the backbone vit; give it to {self.name} in `options`")
        if theirs and not self.timm:
            raise ValueError(f"{sorted(theirs)[0]} is a key of the backbones timm:NAME, this one is vit")
        if self.weights and self.pretrained:
            raise ValueError("weights and pretrained are two ways to start; give one of them")
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
    tracks: tuple[str, ...] = ()
    """Further recipes: every row is trained with each of them too, and compared within it."""
    trust: int = Field(default=128, ge=0)
    """Number of test samples on which each network's adversarial numbers are examined; 0 for none."""
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
    swaps: tuple[tuple[str, str], ...] = ()
    """Pairs of rows: the attention of each works on the weights of the other."""

    @property
    def title(self) -> str:
        """Name and version, `smoke-2`."""
        return f"{self.name}-{self.version}"

    @property
    def draft(self) -> bool:
        """Whether results under it may be published."""
        return self.version == 0


def _known_keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _fault(error: ValidationError, root: type[BaseModel]) -> str:
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = root
        for part, inner in (("backbone", Backbone), ("shifts", ShiftLine), ("statistics", Statistics)):
            section = inner if first["loc"][0] == part and len(first["loc"]) > 1 else section
        known = _known_keys(section)
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; the keys here are {', '.join(known)}"
        return f"unknown key '{where}'{hint}"
    if first["type"] == "missing":
        return f"the key '{where}' is missing"
    if first["type"] == "tuple_type":
        return f"'{where}': {_as_list(str(first['loc'][0]), str(first['loc'][-1]), first['input'])}"
    message = first["msg"].removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def _as_list(top: str, key: str, given: Any) -> str:
    """Return how something that has to be a list is written."""
    if top == "swaps":
        return 'a list of pairs is expected, as in swaps = [["softmax", "elliptical"]]'
    if key == "shifts":
        return "a list of tables is expected, each under [[shifts]] with double brackets"
    plain = isinstance(given, (str, int, float))
    return f"a list is expected, as in {key} = [{json.dumps(given)}]" if plain else "a list is expected"


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
        raise BadProtocol(f"{path}: {_fault(error, Protocol)}") from None


def read_backbone(text: str) -> Backbone:
    """Read `timm:NAME(depth=3,weights=FILE)` or `vit(dim=32)`: keys of a backbone, and options of timm's."""
    name, given = parsed(text)
    values: dict[str, Any] = {"name": name}
    for key, value in given.items():
        if key in THEIRS | {"weights"} or not name.startswith("timm:"):
            values[key] = value
        else:
            values.setdefault("options", {})[key] = _plain(value)
    try:
        return Backbone.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"--backbone '{text}': {_fault(error, Backbone)}") from None


def _plain(text: str) -> str | int | float | bool:
    """Read a number or a truth value where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def read_swap(text: str) -> tuple[str, str]:
    """Read `A:B`, the colon outside parentheses.

    >>> read_swap("softmax:elliptical(scaling=mean)")
    ('softmax', 'elliptical(scaling=mean)')
    """
    match = re.fullmatch(r"([^:()]+(?:\([^()]*\))?):([^:()]+(?:\([^()]*\))?)", text.strip())
    if match is None:
        raise BadInput(f"cannot read --swap '{text}'; write two rows, A:B, settings in parentheses")
    return match[1].strip(), match[2].strip()


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
