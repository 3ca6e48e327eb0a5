"""The examples work: a package that brings a variant by its entry point, and a notebook that opens every door."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example package is installed, laid out as an installer would."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLES / "package" / "pyproject.toml").read_text())["project"]
    (package,) = (EXAMPLES / "package").glob("attnbench_*")
    shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
    return {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}


def call(environment: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "attnbench.bench.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300)


def test_an_installed_package_brings_its_variant(installed: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(call(installed, tmp_path, "ls", "variants", "--json").stdout)
    assert "tempered" in json.dumps(listed)
    proved = call(installed, tmp_path, "check", "tempered", "--json")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    planned = call(installed, tmp_path, "plan", "smoke", "--variant", "tempered", "--json")
    assert "tempered" in {node["row"] for node in json.loads(planned.stdout)["nodes"]}


def code_of(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_and_shows_no_error() -> None:
    cells = code_of(EXAMPLES / "doors.ipynb")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"]
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2
    assert "/home/" not in (EXAMPLES / "doors.ipynb").read_text()


@pytest.mark.campaign
def test_the_notebook_runs_to_its_end(tmp_path: Path) -> None:
    script = (
        "import nbformat, sys\nfrom nbclient import NotebookClient\n"
        "NotebookClient(nbformat.read(sys.argv[1], 4), timeout=600, kernel_name='python3').execute()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLES / "doors.ipynb")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_code_of_the_notebook_runs_in_order(tmp_path: Path) -> None:
    """The same cells as a script, so that the suite needs no kernel; a display is a value that is thrown away."""
    script = "\n".join("".join(cell["source"]) for cell in code_of(EXAMPLES / "doors.ipynb"))
    script = script.replace("from IPython.display import Markdown", "Markdown = str")
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
