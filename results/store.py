"""A run on disk: one immutable file for each cell, safe under kill -9, readable without attnbench.

    run.json                    what was planned, and a snapshot of every declaration it used
    cells/<key>.json            one finished cell: its full specification, records, facts, timing, provenance
    outcomes/<key>.parquet      its outcomes by sample and severity, named with their digest in the cell
    checkpoints/<key>.safetensors   weights of one trained model (entry of a `train` node)
    checkpoints/<key>.json      how they came about
    attempts/<key>/<n>.json     attempts that failed, each with its reason
    measured/<key>.safetensors  quantities measured on a donor (entry of a `calibrate` node)

A file is written under another name, flushed to the disk and renamed, so a reader meets a whole file or none. JSON is
strict: a number that does not exist is null with a reason.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Document = dict[str, Any]
CELL_FIELDS = {"key", "cell", "records", "facts", "timing", "provenance", "outcomes"}
"""What every cell says."""


class StoreError(Exception):
    """The folder cannot be used as a store, or a file in it is damaged; the message says what to do."""


def digest(data: bytes) -> str:
    """Return the sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def strict_json(document: Mapping[str, Any]) -> bytes:
    """Return indented JSON without NaN or infinity, which raise ValueError.

    >>> strict_json({"b": 1, "a": None}).decode().split()
    ['{', '"a":', 'null,', '"b":', '1', '}']
    """
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def publish(path: Path, data: bytes) -> None:
    """Write a whole file or none: under another name, flushed to the disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Store:
    """The files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self) -> None:
        """Make the folder, or raise StoreError where it cannot be made or written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot use {self.root} as a run folder ({error.strerror}); name another with --out"
            ) from None
        if not os.access(self.root, os.W_OK):
            raise StoreError(f"cannot write in {self.root}; name another folder with --out")

    def sweep(self) -> None:
        """Remove what a killed process left half written; the caller holds the folder for itself."""
        for path in self.root.rglob(".*.tmp"):
            with suppress(OSError):
                path.unlink()

    def cell_path(self, key: str) -> Path:
        """Return where a cell lies."""
        return self.root / "cells" / f"{key}.json"

    def checkpoint_path(self, key: str) -> Path:
        """Return where weights lie."""
        return self.root / "checkpoints" / f"{key}.safetensors"

    def measured_path(self, key: str) -> Path:
        """Return where the quantities measured on a donor lie."""
        return self.root / "measured" / f"{key}.safetensors"

    def outcomes_path(self, key: str) -> Path:
        """Return where a cell's outcomes lie."""
        return self.root / "outcomes" / f"{key}.parquet"

    def has(self, kind: str, key: str) -> bool:
        """Whether a node of the plan (`train`, `calibrate`, `cell`) is done; a cell with the outcomes that it names."""
        where = {"train": self.checkpoint_path, "calibrate": self.measured_path, "cell": self.cell_path}
        if not where[kind](key).exists():
            return False
        return kind != "cell" or self.outcomes_path(key).exists() or self.cell(key)["outcomes"] is None

    def note(self, path: Path) -> Document:
        """Read a JSON file of the run; a damaged one raises StoreError."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(document, dict):
                raise ValueError("not an object")
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}); delete it and run the same command again") from None
        return document

    def cell(self, key: str) -> Document:
        """Read one cell; a file that is no cell, or another one's, raises StoreError."""
        path = self.cell_path(key)
        document = self.note(path)
        if document.get("key") != key or CELL_FIELDS - document.keys():
            raise StoreError(f"{path} is damaged (not the cell of that name); delete it and run the same command again")
        return document

    def keys(self) -> list[str]:
        """Return the keys of all finished cells, sorted."""
        return sorted(path.stem for path in (self.root / "cells").glob("*.json") if not path.name.startswith("."))

    def _outcomes(self, key: str) -> bytes:
        path = self.outcomes_path(key)
        fix = "delete the file and run the same command again"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}); {fix}") from None
        if digest(data) != self.cell(key)["outcomes"]["sha256"]:
            raise StoreError(f"{path} is not what its cell recorded; {fix}")
        return data

    def examine(self, key: str) -> Document:
        """Read a cell and check that its outcomes are those that it recorded; StoreError where they are not."""
        cell = self.cell(key)
        if cell["outcomes"] is not None:
            self._outcomes(key)
        return cell

    def outcomes(self, key: str) -> pa.Table:
        """Read a cell's outcomes by sample, or raise StoreError where they differ from what the cell says."""
        return pq.read_table(pa.BufferReader(self._outcomes(key)))

    def publish_cell(self, key: str, document: Mapping[str, Any], outcomes: pa.Table | None) -> None:
        """Write the outcomes, then the cell that names them; the cell exists only when both do."""
        entry = dict(document)
        entry["outcomes"] = None
        if outcomes is not None:
            sink = pa.BufferOutputStream()
            pq.write_table(outcomes, sink, compression="zstd")
            data = sink.getvalue().to_pybytes()
            publish(self.outcomes_path(key), data)
            entry["outcomes"] = {"rows": outcomes.num_rows, "sha256": digest(data)}
        publish(self.cell_path(key), strict_json(entry))

    def publish_note(self, path: Path, document: Mapping[str, Any]) -> None:
        """Write a JSON file of the run."""
        publish(path, strict_json(document))

    def attempts(self, key: str) -> list[Document]:
        """Return the attempts that failed, oldest first."""
        paths = sorted((self.root / "attempts" / key).glob("[0-9]*.json"), key=lambda path: int(path.stem))
        return [self.note(path) for path in paths]

    def publish_attempt(self, key: str, document: Mapping[str, Any]) -> None:
        """Add an attempt that failed."""
        number = len(self.attempts(key)) + 1
        publish(self.root / "attempts" / key / f"{number}.json", strict_json(document))

    def run(self) -> Document:
        """Read what was planned, or raise StoreError where nothing was."""
        path = self.root / "run.json"
        if not path.exists():
            raise StoreError(f"no run in {self.root}; start one with `attnbench run PROTOCOL --out {self.root}`")
        return self.note(path)

    def publish_run(self, document: Mapping[str, Any]) -> None:
        """Write what is planned."""
        publish(self.root / "run.json", strict_json(document))
