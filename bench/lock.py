"""The lock table: a digest of every file that can move a number, so that none changes without a new version.

Comments, docstrings and layout do not count. Plugins need no lock: they are keyed by their syntax tree.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..attacks.adversarial.torchattacks import torchattacks_shift
from ..attacks.version import DRAW_VERSION, TRUST_VERSION
from ..models.version import VERSION as BACKBONE_VERSION
from ..results.store import publish, strict_json
from .catalog import ROOMS, ROOT, open_catalog
from .syntax_tree import local_files, tree_digest
from .version import EVALUATION_VERSION, SWAP_VERSION, TRAINING_VERSION

PATH = Path(__file__).resolve().parent / "lock.json"
MACHINES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "backbone": (
        BACKBONE_VERSION,
        (
            "models/attention.py",
            "models/block.py",
            "models/initial_value.py",
            "models/noise.py",
            "models/site.py",
            "models/vit.py",
            "models/demand.py",
            "models/norm.py",
        ),
    ),
    "draw": (DRAW_VERSION, ("attacks/draw.py",)),
    "training": (TRAINING_VERSION, ("bench/fit.py", "bench/noise.py", "models/logit_spread.py", "models/sight.py")),
    "torchattacks": (
        torchattacks_shift("torchattacks:PGD").version,
        tuple(f"attacks/adversarial/{name}.py" for name in ("foreign", "isolation", "torchattacks")),
    ),
    "swap": (SWAP_VERSION, ("bench/swapping.py", "models/swap.py")),
    "evaluation": (
        EVALUATION_VERSION,
        tuple(f"bench/{name}.py" for name in ("ball", "cell", "rung", "shifting", "target")),
    ),
    "trust": (
        TRUST_VERSION,
        tuple(f"attacks/trust/{path.name}" for path in sorted((ROOT / "attacks" / "trust").glob("*.py"))),
    ),
}
"""Files that move numbers without declaring anything, by the version that answers for them."""
VERSIONLESS = ("__init__.py", "version.py", "variant.py", "shift.py", "metric.py", "samples.py", "observation.py")
"""Files of the ground rooms that hold no mathematics."""


class Lock(NamedTuple):
    """One line of the table."""

    version: int
    """Version that answers for the files."""
    tree: str
    """sha256 of their syntax trees."""


def current() -> dict[str, Lock]:
    """Return the table as the files are now."""
    found = {
        f"machine {name}": Lock(version, tree_digest(_sources(files))) for name, (version, files) in MACHINES.items()
    }
    catalog = open_catalog()
    for kind in ROOMS:
        files: dict[str, list[int]] = {}
        for declared in catalog.found[kind].values():
            if declared.origin.module:
                files.setdefault(declared.origin.path, []).append(getattr(declared.value, "version", 0))
        for path, versions in files.items():
            local = str(Path(path).relative_to(ROOT))
            found[f"{kind} {local}"] = Lock(max(versions), tree_digest(_sources((local, *_shared(Path(path))))))
    return dict(sorted(found.items()))


def _shared(path: Path) -> Iterator[str]:
    """Yield the files of the same room that a declaring file leans on and that no machine answers for."""
    answered = {file for _, files in MACHINES.values() for file in files}
    for file in local_files(path)[1:]:
        local = str(file.relative_to(ROOT))
        if local not in answered and file.name not in VERSIONLESS and local.split("/")[0] != "bench":
            yield local


def _sources(files: tuple[str, ...]) -> Iterator[str]:
    for file in files:
        yield (ROOT / file).read_text(encoding="utf-8")


def locked() -> dict[str, Lock]:
    """Return the table as it was last taken in."""
    entries = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    return {name: Lock(entry["version"], entry["tree"]) for name, entry in entries.items()}


def faults(now: Mapping[str, Lock], then: Mapping[str, Lock]) -> list[str]:
    """Return what is wrong, one line each, with what to do."""
    found = []
    for name, lock in now.items():
        old = then.get(name)
        if old is None:
            found.append(f"{name}: new; take it in with `python -m attnbench.bench.cli.lock --update`")
        elif lock.tree != old.tree and lock.version == old.version:
            found.append(
                f"{name}: changed at version {lock.version}; raise its version if a number can move, then --update"
            )
        elif lock != old:
            found.append(f"{name}: version {old.version} became {lock.version}; take it in with --update")
    found.extend(f"{name}: gone; take it out with --update" for name in then.keys() - now.keys())
    return found


def unpacked() -> list[str]:
    """Return the package folders that the package list of pyproject.toml lacks, one line each."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    folders = [
        path.parent
        for room in ("", *_rooms())
        for path in (ROOT / room).glob("**/__init__.py" if room else "__init__.py")
    ]
    names = {".".join(("attnbench", *folder.relative_to(ROOT).parts)) for folder in folders}
    missing = [f"{name}: not in the package list of pyproject.toml" for name in sorted(names - listed)]
    return missing + [
        f"{name}: in the package list of pyproject.toml, but not there" for name in sorted(listed - names)
    ]


def _rooms() -> tuple[str, ...]:
    return ("attacks", "bench", "metrics", "models", "reports", "results")


def take_in(now: Mapping[str, Lock]) -> None:
    """Write the table."""
    publish(PATH, strict_json({name: lock._asdict() for name, lock in now.items()}))
