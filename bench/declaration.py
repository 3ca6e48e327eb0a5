"""Reads the constants that a file declares, without running it.

A declaration is written in literals, so a plan can be made without torch, and code runs only where its declaration is
used. A name of the same file (a core, a function) becomes a `Deferred`, which imports the file when it is first called.
"""

import ast
import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..attacks.shift import Shift
from ..metrics.metric import Metric
from ..models.variant import Reported, Variant
from .error import BadDeclaration
from .recipe import Recipe
from .syntax_tree import local_files
from .task import Task

KINDS: dict[str, type[Any]] = {
    "Variant": Variant,
    "Shift": Shift,
    "Metric": Metric,
    "Task": Task,
    "Recipe": Recipe,
}
NESTED: dict[str, type[Any]] = {"Reported": Reported}
Value = Variant | Shift | Metric | Task | Recipe


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a declaration stands: a file, and the module that it is when it belongs to an installed package."""

    path: str
    """File that holds it."""
    module: str = ""
    """Importable name; empty for a file that the user named."""

    def load(self) -> ModuleType:
        """Import the file, once; whatever it raises becomes a BadDeclaration that names it."""
        try:
            return importlib.import_module(self.module) if self.module else self._load_file()
        except Exception as error:
            raise BadDeclaration(
                f"{self.path} cannot be imported ({type(error).__name__}: {error}); mend it or leave it out"
            ) from error

    def _load_file(self) -> ModuleType:
        path = Path(self.path).resolve()
        name = f"attnbench_plugin_{path.stem}_{abs(hash(str(path))):x}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with _own_imports(path):
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return module


@contextlib.contextmanager
def _own_imports(path: Path) -> Iterator[None]:
    """Let a file import its neighbours, and nobody else meet them: two plugins may each have a `helper.py`."""
    names = {".".join(file.relative_to(path.parent).with_suffix("").parts) for file in local_files(path)[1:]}
    names |= {name.removesuffix(".__init__") for name in names} | {name.partition(".")[0] for name in names}
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(path.parent))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(path.parent))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(others)
        importlib.invalidate_caches()


@dataclass(frozen=True, slots=True)
class Deferred:
    """A class or function of a file that is not imported yet; calling it imports the file."""

    origin: Origin
    """Where it stands."""
    attribute: str
    """Its name there."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Import and call."""
        return self.resolved()(*args, **kwargs)

    def resolved(self) -> Callable[..., Any]:
        """Import and return it."""
        found: Callable[..., Any] = getattr(self.origin.load(), self.attribute)
        return found


@dataclass(frozen=True, slots=True)
class Declared:
    """One constant that was found."""

    value: Value
    """The declaration."""
    origin: Origin
    """Where it stands."""


class _Reader:
    """Evaluates the literals of one file."""

    def __init__(self, origin: Origin, tree: ast.Module) -> None:
        self.origin = origin
        self.names = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))} | {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in self.names:
            return Deferred(self.origin, node.id)
        if isinstance(node, ast.Call):
            return self.call(node, NESTED)
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(self.value(item) for item in node.elts)
        if isinstance(node, ast.Dict):
            return {self.value(k): self.value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        return ast.literal_eval(node)

    def call(self, node: ast.Call, kinds: dict[str, type[Any]]) -> Any:
        kind = node.func.id if isinstance(node.func, ast.Name) else ""
        where = f"{self.origin.path}, line {node.lineno}"
        if kind not in kinds:
            raise BadDeclaration(
                f"{where}: a declaration is written in literals, `{ast.unparse(node.func)}(...)` is none"
            )
        if node.args:
            raise BadDeclaration(f"{where}: {kind} takes its fields by name, as in {kind}(name=...)")
        fields: dict[str, Any] = {}
        for keyword in node.keywords:
            try:
                fields[str(keyword.arg)] = self.value(keyword.value)
            except ValueError:
                if isinstance(keyword.value, ast.Name):
                    close = difflib.get_close_matches(keyword.value.id, self.names, n=1)
                    hint = f"; did you mean `{close[0]}`?" if close else "; define it there, at the top level"
                    raise BadDeclaration(
                        f"{where}: no class or function `{keyword.value.id}` in this file{hint}"
                    ) from None
                raise BadDeclaration(
                    f"{where}: the field `{keyword.arg}` of {kind} must be written in literals, "
                    f"not as `{ast.unparse(keyword.value)}`"
                ) from None
        known = {f.name: f for f in dataclass_fields(kinds[kind])}
        for name in fields:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"its fields are {', '.join(known)}"
                raise BadDeclaration(f"{where}: {kind} has no field `{name}`; {hint}")
        hints = get_type_hints(kinds[kind])
        for name, value in fields.items():
            allowed = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            if allowed and value not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise BadDeclaration(f"{where}: the field `{name}` of {kind} is {value!r}; allowed are {choices}")
        needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
        lacking = [name for name in needed if name not in fields]
        if lacking:
            raise BadDeclaration(f"{where}: {kind} lacks {', '.join(lacking)}; add what is missing")
        return kinds[kind](**fields)


def read_declarations(origin: Origin) -> list[Declared]:
    """Return what a file declares at its top level, in order."""
    try:
        tree = ast.parse(Path(origin.path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadDeclaration(f"{origin.path} cannot be read ({error.strerror}); check the path") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise BadDeclaration(f"{origin.path}{line}: not valid Python ({error.args[0]})") from None
    reader = _Reader(origin, tree)
    found = []
    for node in tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in KINDS:
            found.append(Declared(reader.call(value, KINDS), origin))
    return found
