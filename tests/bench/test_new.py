"""A new variant passes every check untouched, and nothing of the user's is written over."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnbench.bench.error import BadInput
from attnbench.bench.new import start

Attnbench = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parent.parent.parent


def test_a_new_variant_passes_its_checks_and_its_test_untouched(attnbench: Attnbench, tmp_path: Path) -> None:
    done = attnbench("new", "variant", "sharp_heads", "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = attnbench("check", "./here/sharp_heads.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    skip = ["-k", "not compilation"]
    done = subprocess.run([*pytest_, "here/test_sharp_heads.py", *skip], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_new_variant_is_well_laid_out(tmp_path: Path) -> None:
    paths = start("variant", "sharp_heads", tmp_path, ())
    ruff = [Path(sys.executable).parent / "ruff"]
    for command in (["format", "--check"], ["check"]):
        where = ["--config", str(ROOT / "pyproject.toml"), "--config", "lint.per-file-ignores = {'test_*' = ['D103']}"]
        done = subprocess.run([*ruff, *command, *where, *paths], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_written_over(tmp_path: Path) -> None:
    for taken in ("sharp_heads.py", "test_sharp_heads.py"):
        folder = tmp_path / taken.removesuffix(".py")
        folder.mkdir()
        (folder / taken).write_text("mine")
        with pytest.raises(BadInput, match=rf"{taken} is there already; choose another name"):
            start("variant", "sharp_heads", folder, ())
        assert [path.name for path in folder.iterdir()] == [taken]
        assert (folder / taken).read_text() == "mine"


@pytest.mark.parametrize("name", ["Sharp", "sharp-heads", "2sharp", "_sharp", "sharp_", "lambda", "a/b", "", "a.b"])
def test_a_name_is_lower_snake_case(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="use lower snake case"):
        start("variant", name, tmp_path, ())
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told_in_one_line(attnbench: Attnbench, tmp_path: Path) -> None:
    for arguments, message in (
        (("variant", "softmax"), "the name 'softmax' is taken; choose another (attnbench ls variants)"),
        (("metric", "spread"), "cannot start a new 'metric'; what can be started is variant"),
    ):
        done = attnbench("new", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == f"attnbench: {message}\n"
    assert list(tmp_path.iterdir()) == []
