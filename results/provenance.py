"""The environment that produced a cell: everything that may explain a difference and must not enter a key."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Provenance:
    """One environment."""

    attnbench: str
    """Version of attnbench."""
    commit: str
    """Commit of the checkout it ran from, with `+` where files differed from it; empty outside a checkout."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the packages that compute."""
    system: str
    """Operating system and kernel."""
    processor: str
    """Name of the processor."""
    threads: int
    """Threads that torch used."""
    device: str
    """Where tensors lived."""
    started: str
    """When, in UTC, ISO 8601."""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def provenance(threads: int, device: str) -> Provenance:
    """Read the environment of this process; `threads` and `device` are known to the caller, who holds torch."""
    return Provenance(
        attnbench=_version("attnbench"),
        commit=_commit(),
        python=sys.version.split()[0],
        packages={p: _version(p) for p in ("torch", "torchvision", "timm", "torchattacks", "numpy", "scikit-learn")},
        system=f"{platform.system()} {platform.release()} {os.cpu_count()} cpus",
        processor=_processor(),
        threads=threads,
        device=device,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
