"""What a file means, as a digest: its syntax tree without comments, layout and docstrings."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

HINTS = ("kind", "type_comment", "type_ignores", "ctx")
"""Fields that say how something was written, not what it does."""


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [
                statement
                for statement in node.body
                if not (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                )
            ] or [ast.Pass()]
    return tree


def _written(node: object) -> str:
    """Write a tree so that every version of Python writes the same: fields that are empty or only hint are left out."""
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in sorted(node._fields))
        kept = (f"{name}={_written(v)}" for name, v in fields if v not in (None, []) and name not in HINTS)
        return f"{type(node).__name__}({','.join(kept)})"
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    return repr(node)


def tree_digest(sources: Iterable[str]) -> str:
    """Return the sha256 of the syntax trees of some sources, in their order.

    >>> tree_digest(["x = 1  # one"]) == tree_digest(["x=1"])
    True
    >>> tree_digest(["x = 1"]) == tree_digest(["x = 2"])
    False
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(_written(_without_docstrings(ast.parse(source))).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _candidates(node: ast.Import | ast.ImportFrom, folder: Path, root: Path, package: str) -> list[Path]:
    """Return where an import may lie: relative ones beside the file, absolute ones under the root."""
    if isinstance(node, ast.ImportFrom) and node.level:
        start = folder
        for _ in range(node.level - 1):
            start = start.parent
        module = start.joinpath(*node.module.split(".")) if node.module else start
        return [module, *(module / alias.name for alias in node.names)]
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    own = [root.joinpath(*name.split(".")) for name in names if not package or name.partition(".")[0] == package]
    inner = [path / alias.name for path in own for alias in node.names] if isinstance(node, ast.ImportFrom) else []
    return [*own, *inner]


def _packages(path: Path, root: Path) -> list[Path]:
    """Return the `__init__.py` of every package between the root and a file: they run before it does."""
    return [parent / "__init__.py" for parent in path.parents if parent != root and parent.is_relative_to(root)]


def local_files(path: Path, module: str = "") -> list[Path]:
    """Return a file, first, and then, sorted, all local files that run when it is imported.

    For a file that the user named, those are found beside and below it; for a module of an installed package, in that
    package. A file that is read as data is not seen.
    """
    first = path.resolve()
    parts = module.split(".") if module else []
    root = first.parents[len(parts) - 1 + (first.name == "__init__.py")] if parts else first.parent
    package = parts[0] if parts else ""
    found: set[Path] = set()
    waiting = [first]
    while waiting:
        current = waiting.pop()
        if current in found or not current.is_file():
            continue
        found.add(current)
        waiting.extend(_packages(current, root))
        for node in ast.walk(ast.parse(current.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for candidate in _candidates(node, current.parent, root, package):
                    waiting.extend((candidate.with_suffix(".py"), candidate / "__init__.py"))
    return [first, *sorted(found - {first})]


def source_digest(path: Path, module: str = "") -> str:
    """Return the digest of a plugin: the syntax trees of its file and of all local files that run with it."""
    return tree_digest(file.read_text(encoding="utf-8") for file in local_files(path, module))
