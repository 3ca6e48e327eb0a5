"""Writes the files that something new starts from: complete, commented, and passing every check untouched."""

import keyword
import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from string import Template

from .error import BadInput

KINDS = ("variant",)
"""What can be started so far."""
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
FILES = {"variant": ("variant.py.txt", "test_variant.py.txt")}


def start(kind: str, name: str, folder: Path, taken: Collection[str]) -> list[Path]:
    """Write `NAME.py` and `test_NAME.py` into a folder and return their paths.

    Raises BadInput for a kind or a name that cannot be used, and where a file is there already.
    """
    if kind not in KINDS:
        raise BadInput(f"cannot start a new '{kind}'; what can be started is {', '.join(KINDS)}")
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise BadInput(f"a {kind} cannot be called '{name}'; use lower snake case, such as sharper_softmax")
    if name in taken:
        raise BadInput(f"the name '{name}' is taken; choose another (attnbench ls {kind}s)")
    words = {
        "name": name,
        "file": f"{name}.py",
        "title": name.replace("_", " ").capitalize(),
        "core": f"{''.join(word.capitalize() for word in name.split('_'))}Attention",
        "constant": name.upper(),
    }
    paths = [folder / f"{name}.py", folder / f"test_{name}.py"]
    for path in paths:
        if path.exists():
            raise BadInput(f"{path} is there already; choose another name or --out, or move the file away")
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files(__package__) / "templates"
    for path, template in zip(paths, FILES[kind], strict=True):
        text = (templates / template).read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    return paths
