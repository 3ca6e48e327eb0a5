"""Whether a report was made from exactly the files that lie in a run's folder, asked of the standard library alone."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

STATE = "report.json"
"""Name of the file, in a report's folder, that says what the report was made from."""


def _listing(folder: Path) -> list[str]:
    """Return name, size and time of every file below a folder, sorted; unfinished files begin with a dot."""
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if not name.startswith("."):
                facts = Path(root, name).stat()
                found.append(f"{Path(root, name).relative_to(folder).as_posix()} {facts.st_size} {facts.st_mtime_ns}")
    return sorted(found)


def fingerprint(run_folder: Path) -> str:
    """Return a digest of the plan, of the cells and attempts, and of the code that draws the report."""
    total = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.glob("*.*")):
        if path.suffix in {".py", ".j2", ".css"}:
            total.update(path.name.encode() + path.read_bytes())
    total.update((run_folder / "run.json").read_bytes())
    for part in ("cells", "attempts"):
        total.update("\n".join([part, *_listing(run_folder / part)]).encode())
    return total.hexdigest()


def state(destination: Path) -> dict[str, Any]:
    """Read what a report says of itself; empty where there is none or it cannot be read."""
    try:
        document = json.loads((destination / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def current(run_folder: Path, destination: Path) -> bool:
    """Whether the report is there, whole, and made from exactly these files."""
    try:
        known = state(destination)
        whole = bool(known) and all((destination / name).is_file() for name in known["files"])
        return whole and known["fingerprint"] == fingerprint(run_folder)
    except (OSError, KeyError, TypeError):
        return False
