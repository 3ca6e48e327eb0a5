"""The house keeps its law: rooms, floors, names, packaging."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from attnbench.bench.lock import current, faults, locked, unpacked

ROOT = Path(__file__).parent.parent
ROOMS = ("attacks", "bench", "metrics", "models", "reports", "results")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_every_package_folder_is_listed() -> None:
    assert unpacked() == []


def test_nothing_that_moves_a_number_changed_without_a_version() -> None:
    assert faults(current(), locked()) == []


def test_the_lock_notices_a_silent_change() -> None:
    now = current()
    name = next(iter(now))
    silent = {**now, name: now[name]._replace(tree="0" * 64)}
    assert [line for line in faults(silent, now) if "raise its version" in line]
    louder = {**now, name: now[name]._replace(tree="0" * 64, version=now[name].version + 1)}
    assert [line for line in faults(louder, now) if "--update" in line]
    assert faults({}, {name: now[name]}) == [f"{name}: gone; take it out with --update"]


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "__init__.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_what_the_house_asks_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the first line says what is true after reading the file"
    if path.name == "__init__.py":
        rest = [node for node in tree.body[1:] if not (isinstance(node, ast.Assign) and path.parent == ROOT)]
        assert rest == [], "an __init__.py is a docstring and nothing else"
    forbidden = {"utils", "helpers", "common", "base", "core", "manager", "misc"}
    assert path.stem not in forbidden
    assert len(path.read_text().splitlines()) <= 300
    names = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 0}
    assert not {n for n in names if n.startswith("attnbench")}, "inside the package imports are relative"
    if path.name != "isolation.py":
        assert "torchattacks" not in names, "one file alone may import torchattacks"
    if path.relative_to(ROOT).parts[:2] != ("bench", "cli"):
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"print", "exit", "input"}


def test_no_code_asks_for_a_variants_name() -> None:
    names = {path.stem for path in (ROOT / "models" / "variants").glob("*.py")} - {"__init__"}
    for path in SOURCES:
        if path.parent.name == "variants":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                texts = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                assert not texts & names, f"{path}, line {node.lineno}"


def test_the_three_floors_hold() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_readme_shows_the_plugin_that_is_tested() -> None:
    shown = re.findall(r"```python\n# mine\.py\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    tested = ast.parse((ROOT / "tests" / "plugins" / "sharper.py").read_text())

    def code(tree: ast.Module) -> str:
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef)) and ast.get_docstring(node):
                node.body = node.body[1:]
        return ast.unparse(tree).replace("'the paper and its equation'", "'a test'")

    assert code(ast.parse(shown[0])) == code(tested)


def test_the_readme_lists_every_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for package in listed[1:]:
        assert f"{package.rpartition('.')[2]}/" in readme, package


@pytest.mark.campaign
def test_a_wheel_runs_from_an_empty_folder(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert subprocess.run([python, "-c", "import models"], cwd=empty, capture_output=True).returncode == 1
    done = subprocess.run([python.parent / "attnbench", "run", "smoke"], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([python.parent / "attnbench", "report", "smoke"], cwd=empty, capture_output=True, text=True)
    assert (empty / "runs" / "smoke-2" / "report" / "index.html").exists(), done.stderr
