"""Everything that can be named: variants, shifts, metrics, tasks, recipes and protocols, found where they are declared.

Built-in declarations stand in their rooms, those of installed packages are found by the entry point groups
`attnbench.variants`, `attnbench.shifts`, ..., and those of a user in the files named on the command line.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..attacks.adversarial.torchattacks import torchattacks_shift
from ..attacks.shift import Shift
from ..metrics.metric import Metric
from ..models.variant import Variant
from .declaration import Declared, Deferred, Origin, read_declarations
from .error import AttnbenchError, BadDeclaration, BadInput, UnknownName
from .recipe import Recipe
from .selection import Setting, label, parsed, resolved
from .syntax_tree import source_digest
from .task import Task

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = __name__.rsplit(".", 2)[0]
ROOMS = {
    "variant": ("models/variants",),
    "shift": ("attacks", "attacks/adversarial", "attacks/corruption", "attacks/contamination"),
    "metric": ("metrics",),
    "task": ("bench/tasks",),
    "recipe": ("bench/recipes",),
}
CLASSES: dict[str, type[Any]] = {"variant": Variant, "shift": Shift, "metric": Metric, "task": Task, "recipe": Recipe}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One declaration with its settings resolved."""

    value: T
    """The declaration."""
    settings: Mapping[str, Setting]
    """All settings."""
    label: str
    """Name with the settings that differ from their defaults."""
    identity: Mapping[str, Any]
    """What enters keys: name, settings, and the version or, for a plugin, the digest of its syntax tree."""


@dataclass(slots=True)
class Catalog:
    """All declarations of one process, by kind and name."""

    found: dict[str, dict[str, Declared]] = field(default_factory=lambda: {kind: {} for kind in ROOMS})
    """Declarations by kind and name."""
    broken: list[str] = field(default_factory=list)
    """Installed plugins that could not be read, each with the reason."""
    files: list[str] = field(default_factory=list)
    """Files that the user named."""
    models: list[str] = field(default_factory=list)
    """Networks that the user named, `NAME=FILE:FUNCTION` each."""
    objects: dict[str, str] = field(default_factory=dict)
    """Networks of this process, by name the digest that stands for each."""

    def add(self, origin: Origin, only: str = "") -> list[Declared]:
        """Read a file and take in what it declares; a name that is taken raises BadDeclaration naming both owners."""
        declarations = read_declarations(origin)
        for declared in declarations:
            kind = next(k for k, cls in CLASSES.items() if isinstance(declared.value, cls))
            if only and kind != only:
                continue
            name = declared.value.name
            owner = self.found[kind].get(name)
            if owner is not None and owner.origin != origin:
                raise BadDeclaration(
                    f"two {kind}s are called '{name}': {owner.origin.path} and {origin.path}; rename one of them"
                )
            self.found[kind][name] = declared
        return declarations

    def add_file(self, path: str) -> list[Declared]:
        """Take in a file that the user named and import it at once, so that its faults show before anything runs."""
        origin = Origin(str(Path(path).resolve()))
        declarations = self.add(origin)
        if not declarations:
            raise BadDeclaration(f"{path} declares nothing; add a constant such as MINE = Variant(name=..., core=...)")
        origin.load()
        if str(origin.path) not in self.files:
            self.files.append(origin.path)
        return declarations

    def add_model(self, text: str, *, run: bool = True) -> str:
        """Take in a network that the user named, `FILE:FUNCTION` or `NAME=FILE:FUNCTION`; return its name.

        `run` imports the file, so that its faults show before anything runs.
        """
        match = re.fullmatch(r"(?:([^=]+)=)?(.+\.py):([A-Za-z_]\w*)", text)
        if match is None:
            raise BadInput(f"cannot read --model '{text}'; write FILE.py:FUNCTION or NAME=FILE.py:FUNCTION")
        path, function = str(Path(match[2]).resolve()), match[3]
        name = match[1] or Path(path).stem + ("" if function == "build" else f"_{function}")
        _require_name(name)
        declared = Declared(own_network(name, Deferred(Origin(path), function), match[2]), Origin(path))
        owner = self.found["variant"].get(name)
        if owner is not None and owner.value != declared.value:
            raise BadDeclaration(
                f"'{name}' is taken by {owner.origin.path}; name the network: NAME={match[2]}:{function}"
            )
        if not Path(path).is_file():
            raise BadInput(f"cannot read {match[2]} (no such file); check --model")
        if run and not callable(getattr(declared.origin.load(), function, None)):
            raise BadInput(
                f"{match[2]} has no function '{function}'; give --model {match[2]}:FUNCTION, one that returns a module"
            )
        self.found["variant"][name] = declared
        resolved_text = f"{name}={path}:{function}"
        if resolved_text not in self.models:
            self.models.append(resolved_text)
        return name

    def add_object(self, name: str, build: Callable[[], Any], tree: str) -> None:
        """Take in a network of this process, with the digest that stands for it."""
        _require_name(name)
        if name in self.found["variant"]:
            raise BadDeclaration(f"'{name}' is taken by {self.found['variant'][name].origin.path}; choose another name")
        origin = Origin("in this process")
        self.found["variant"][name] = Declared(own_network(name, build, origin.path), origin)
        self.objects[name] = tree

    def model_of(self, variant: str) -> str:
        """Return how the user named a network, so that it can be named again; empty for variants."""
        return next((text for text in self.models if text.partition("=")[0] == variant), "")

    def remember_file(self, path: str) -> None:
        """Take in a file that an earlier run named, without running it."""
        self.add(Origin(path))

    def file_of(self, variant: str) -> str:
        """Return the file that the user named for a variant; empty for built-in and installed ones."""
        origin = self.found["variant"][variant].origin
        return "" if origin.module else origin.path

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind, sorted."""
        return sorted(self.found[kind])

    def _declared(self, kind: str, name: str) -> Declared:
        if kind == "shift" and name.startswith("torchattacks:"):
            try:
                path = ROOT / "attacks" / "adversarial" / "torchattacks.py"
                return Declared(torchattacks_shift(name), Origin(str(path), _module(path)))
            except ValueError as error:
                raise BadInput(str(error)) from None
        if name not in self.found[kind]:
            raise UnknownName(kind, name, self.names(kind), f"attnbench ls {kind}s")
        return self.found[kind][name]

    def entry(self, kind: str, text: str) -> Entry[Any]:
        """Return the entry that `name(setting=value,...)` names."""
        name, given = parsed(text)
        declared = self._declared(kind, name)
        value = declared.value
        defaults = getattr(value, "settings", {})
        settings = resolved(kind, name, given, defaults, getattr(value, "choices", {}))
        identity: dict[str, Any] = {"name": name, "settings": settings}
        if declared.origin.module.partition(".")[0] == PACKAGE:
            identity["version"] = value.version
        elif name in self.objects:
            identity["tree"] = self.objects[name]
        else:
            if isinstance(value, Variant) and value.builds == "network":
                identity["function"] = getattr(value.core, "attribute", "")
            identity["tree"] = source_digest(Path(declared.origin.path), declared.origin.module)
        return Entry(value, settings, label(name, settings, defaults), identity)

    def variant(self, text: str) -> Entry[Variant]:
        """Return a variant with its settings."""
        return self.entry("variant", text)

    def shift(self, text: str) -> Entry[Shift]:
        """Return a shift with its settings."""
        return self.entry("shift", text)

    def metric(self, text: str) -> Entry[Metric]:
        """Return a metric."""
        return self.entry("metric", text)

    def task(self, text: str) -> Entry[Task]:
        """Return a task."""
        return self.entry("task", text)

    def recipe(self, text: str) -> Entry[Recipe]:
        """Return a recipe with its settings."""
        return self.entry("recipe", text)


def _module(path: Path) -> str:
    return ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts))


def builtin_origins(kind: str) -> list[Origin]:
    """Return the files in which built-in declarations of a kind may stand."""
    paths = [path for room in ROOMS[kind] for path in sorted((ROOT / room).glob("*.py"))]
    return [Origin(str(path), _module(path)) for path in paths if path.name != "__init__.py"]


@lru_cache(maxsize=1)
def _builtin() -> Mapping[str, Mapping[str, Declared]]:
    catalog = Catalog()
    for kind in ROOMS:
        for origin in builtin_origins(kind):
            catalog.add(origin, only=kind)
    return catalog.found


def _add_installed(catalog: Catalog) -> None:
    for kind in ROOMS:
        for point in metadata.entry_points(group=f"attnbench.{kind}s"):
            try:
                spec = util.find_spec(point.value.partition(":")[0])
                if spec is None or spec.origin is None:
                    raise BadDeclaration(f"module {point.value} is not there")
                catalog.add(Origin(spec.origin, point.value.partition(":")[0]), only=kind)
            except (AttnbenchError, ImportError) as error:
                catalog.broken.append(f"{point.name} ({point.value}): {error}")


def _require_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise BadInput(f"a network cannot be called '{name}'; letters, digits, _ . and - are allowed: NAME=FILE.py:...")


def own_network(name: str, core: Callable[..., Any], source: str) -> Variant:
    """Return the declaration of a network that a user brings whole."""
    return Variant(
        name=name,
        core=core,
        source=source,
        version=1,
        summary="A network of the user's own, used as it is.",
        formula="",
        family=name,
        attention_map="implicit",
        builds="network",
    )


def open_catalog(files: Iterable[str] = (), models: Iterable[str] = ()) -> Catalog:
    """Return the catalogue of everything built in, installed, and in the files and networks named."""
    catalog = Catalog({kind: dict(entries) for kind, entries in _builtin().items()})
    _add_installed(catalog)
    for path in files:
        catalog.add_file(path)
    for text in models:
        catalog.add_model(text)
    return catalog
