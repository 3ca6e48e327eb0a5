"""A run so small that it can be killed, starved and repeated in a test."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

PROTOCOL = """
name = "tiny"
version = 1
question = "Does a run survive?"
task = "digits"
recipe = "smoke(epochs=1)"
variants = ["softmax", "elliptical", "softmax_matched"]
metrics = ["accuracy", "token_cosine", "erank_unit"]
costs = ["parameters", "flops", "latency", "activation_memory"]
limit = 43
trust = 0

[backbone]
dim = 32
depth = 2
heads = 2

[[shifts]]
shift = "pgd(steps=3)"
severities = ["0.05", "0.1"]

[[shifts]]
shift = "gaussian_noise(constants=digits_8)"
severities = ["1", "5"]
"""

Attnbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def attnbench() -> Attnbench:
    """The command, in a process of its own."""

    def call(
        *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "attnbench.bench.cli.app", *map(str, arguments)],
            capture_output=True, text=True, cwd=cwd, timeout=300, env={**os.environ, "COLUMNS": "200", **(env or {})},
        )  # fmt: skip

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The protocol's file."""
    path = tmp_path_factory.mktemp("protocol") / "tiny.toml"
    path.write_text(PROTOCOL)
    return path


@pytest.fixture(scope="session")
def undisturbed(tiny: Path, attnbench: Attnbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed, in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = attnbench("run", tiny, "--out", folder / "run", "--jobs", "1", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


VOLATILE = ("latency",)


def contents(run: Path) -> dict[str, Any]:
    """Return what a run measured, time and provenance aside."""
    import hashlib

    found: dict[str, Any] = {}
    for path in sorted((run / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        del cell["timing"], cell["provenance"]
        cell["records"] = [r for r in cell["records"] if r["metric"] not in VOLATILE]
        found[path.name] = cell
    for path in sorted((run / "checkpoints").glob("*.safetensors")):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="session")
def measured() -> Callable[[Path], dict[str, Any]]:
    """What a run measured."""
    return contents
