"""A reader meets a whole file or none, and what was written is what is read."""

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from attnbench.results.store import Store, StoreError, publish, strict_json

CELL = {"cell": {}, "records": [], "facts": {}, "timing": {}, "provenance": {}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "run")
    store.create()
    return store


def test_a_cell_comes_back_with_its_outcomes(store: Store) -> None:
    table = pa.table({"sample": ["a", "b"], "correct": pa.array([1.0, 0.0], pa.float32())})
    store.publish_cell("k", {**CELL, "key": "k"}, table)
    assert store.outcomes("k").equals(table)
    assert store.cell("k")["outcomes"]["rows"] == 2
    assert store.keys() == ["k"]


def test_outcomes_that_were_changed_are_refused(store: Store) -> None:
    store.publish_cell("k", {**CELL, "key": "k"}, pa.table({"sample": ["a"]}))
    path = store.root / "outcomes" / "k.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="not what its cell recorded"):
        store.outcomes("k")


def test_numbers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strict_json({"value": float("nan")})


def test_a_damaged_file_is_named_with_what_to_do(store: Store) -> None:
    store.publish_cell("k", {**CELL, "key": "k"}, None)
    store.cell_path("k").write_text('{"half":')
    with pytest.raises(StoreError, match=r"k\.json is damaged .* delete it"):
        store.cell("k")


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    publish(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.json", []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(path.exists()), flush(fd)))
    publish(path, b"new")
    assert seen == [False, True]


def test_half_written_files_of_a_killed_process_are_swept(store: Store) -> None:
    store.publish_cell("k", {**CELL, "key": "k"}, None)
    litter = store.root / "cells" / ".j.json.123.tmp"
    litter.write_text("half")
    assert store.keys() == ["k"]
    store.sweep()
    assert not litter.exists()
    assert store.keys() == ["k"]


def test_attempts_are_kept_in_order(store: Store) -> None:
    for reason in ("first", "second"):
        store.publish_attempt("k", {"reason": reason})
    assert [attempt["reason"] for attempt in store.attempts("k")] == ["first", "second"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another with --out"):
        Store(tmp_path / "file" / "run").create()


def test_an_empty_folder_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="attnbench run PROTOCOL"):
        Store(tmp_path).run()


def test_documents_are_sorted_json(store: Store) -> None:
    store.publish_run({"b": 1, "a": [1, None]})
    text = (store.root / "run.json").read_text()
    assert json.loads(text) == {"a": [1, None], "b": 1}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("content", ["{}", "[]", '{"key": "other"}'])
def test_valid_json_that_is_no_cell_is_damaged(store: Store, content: str) -> None:
    store.publish_cell("k", {**CELL, "key": "k"}, None)
    store.cell_path("k").write_text(content)
    with pytest.raises(StoreError, match="is damaged"):
        store.cell("k")


def test_a_cell_without_its_outcomes_is_not_done(store: Store) -> None:
    store.publish_cell("k", {**CELL, "key": "k"}, pa.table({"sample": ["a"]}))
    store.publish_cell("cost", {**CELL, "key": "cost"}, None)
    assert store.has("cell", "k")
    assert store.has("cell", "cost")
    store.outcomes_path("k").unlink()
    assert not store.has("cell", "k")
