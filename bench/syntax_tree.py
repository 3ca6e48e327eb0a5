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


def _candidates(node: ast.Import | ast.ImportFrom, folder: Path) -> list[Path]:
    if isinstance(node, ast.Import):
        return [folder.joinpath(*alias.name.split(".")) for alias in node.names]
    start = folder
    for _ in range(max(node.level - 1, 0)):
        start = start.parent
    module = start.joinpath(*node.module.split(".")) if node.module else start
    return [module, *(module / alias.name for alias in node.names)]


def local_files(path: Path) -> list[Path]:
    """Return a file and the files beside or below it that it imports, directly or through each other, sorted."""
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for node in ast.walk(ast.parse(current.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for candidate in _candidates(node, current.parent):
                    for file in (candidate.with_suffix(".py"), candidate / "__init__.py"):
                        if file.is_file():
                            waiting.append(file.resolve())
    return [path.resolve(), *sorted(found - {path.resolve()})]


def source_digest(path: Path) -> str:
    """Return the digest of a plugin: its own syntax tree and those of its local imports."""
    return tree_digest(file.read_text(encoding="utf-8") for file in local_files(path))
