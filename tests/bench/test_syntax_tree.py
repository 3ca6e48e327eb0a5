"""A digest moves with the meaning of a file and with nothing else."""

from pathlib import Path

import pytest

from attnbench.bench.syntax_tree import local_files, source_digest, tree_digest

PLAIN = 'def f(x):\n    """Say."""\n    return x + 1\n'


@pytest.mark.parametrize(
    "same",
    [
        "def f(x):\n    return x + 1\n",
        'def f(x):\n\n    """Say something else."""\n    return (x+1)  # a comment\n',
        '"""A module."""\ndef f(x): return x + 1',
    ],
)
def test_layout_comments_and_docstrings_do_not_count(same: str) -> None:
    assert tree_digest([same]) == tree_digest([PLAIN])


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x - 1\n",
        "def f(x, y=None):\n    return x + 1\n",
        "def f(x):\n    return '1'\n",
        "def f(x):\n    return None\n",
        "def f(x):\n    return\n",
        "def g(x):\n    return x + 1\n",
    ],
)
def test_meaning_counts(other: str) -> None:
    assert tree_digest([other]) != tree_digest([PLAIN])


def test_returning_nothing_and_none_differ_in_the_tree() -> None:
    assert tree_digest(["def f():\n    return None"]) != tree_digest(["def f():\n    return"])


def test_local_imports_are_followed_and_foreign_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text("from . import sister\n")
    (tmp_path / "package" / "sister.py").write_text("import mine\n")
    mine = tmp_path / "mine.py"
    mine.write_text("import os, torch\nfrom package import inner\n")
    names = [path.name for path in local_files(mine)]
    assert names[0] == "mine.py"
    assert set(names) == {"mine.py", "__init__.py", "inner.py", "sister.py"}
    before = source_digest(mine)
    (tmp_path / "package" / "sister.py").write_text("import mine\nx = 1\n")
    assert source_digest(mine) != before


def test_packages_run_before_their_modules_and_absolute_imports_start_at_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "pkg" / "deep").mkdir(parents=True)
    files = {
        "mine.py": "import pkg.deep.mod\n",
        "pkg/__init__.py": "",
        "pkg/deep/__init__.py": "",
        "pkg/deep/mod.py": "import beside\n",
        "beside.py": "",
        "pkg/deep/beside.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = {str(path.relative_to(tmp_path)) for path in local_files(tmp_path / "mine.py")}
    assert found == files.keys() - {"pkg/deep/beside.py"}
