"""A report of runs made by hand: numbers, words, page, files and what is missing."""

import csv
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attnbench.reports.board import board
from attnbench.reports.chapter import tables
from attnbench.reports.page import page
from attnbench.reports.report import is_current, write
from attnbench.reports.run import load
from attnbench.reports.verdict import verdict
from attnbench.results.store import StoreError

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags balance, and collects ids, links and classes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "data", "srcset"}:
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def by_row(label: str, shift: str, severity: str) -> list[float]:
    """l2 breaks at 0.2 and keeps 2 of 10; every other row keeps 8, 6 and 4 of 10."""
    if shift == "pgd":
        right = {"0.1": 6, "0.2": 2 if label == "l2" else 4}[severity]
    else:
        right = 8
    return [1.0] * right + [0.0] * (10 - right)


def correct(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
    return by_row(label, shift, severity)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    from_conftest = request.getfixturevalue("plan")
    root: Path = tmp_path_factory.mktemp("run")
    from_conftest(correct=correct).write(root)
    write(root)
    return root


def test_ranking_holds_exactly_the_known_numbers(written: Path) -> None:
    rows = {row["row"]: row for row in lines((written / "report/tables/ranking.csv").read_text())}
    # Area over [0, 0.2] by trapezoids: (0.8 + 2 * 0.6 + last) / 4.
    assert float(rows["softmax"]["area:pgd"]) == pytest.approx(0.6)
    assert float(rows["l2"]["area:pgd"]) == pytest.approx(0.55)
    assert float(rows["l2"]["accuracy:clean:0"]) == 0.8
    assert float(rows["l2"]["accuracy:clean:0 low"]) == pytest.approx(0.4902, abs=5e-5)
    assert float(rows["l2"]["accuracy:clean:0 high"]) == pytest.approx(0.9433, abs=5e-5)
    assert float(rows["l2"]["mean:corruption"]) == pytest.approx(0.8)
    assert float(rows["l2"]["token_cosine:clean:2"]) == pytest.approx(0.245)
    assert float(rows["l2"]["cost:parameters"]) == 203434
    assert list(rows)[-1] == "l2"
    assert {row["place"] for row in rows.values()} == {"1\N{EN DASH}3"}


def test_differences_are_paired(written: Path) -> None:
    rows = [r for r in lines((written / "report/tables/differences.csv").read_text()) if r["row"] == "l2"]
    area = next(row for row in rows if row["measure"].startswith("pgd, area"))
    assert float(area["difference"]) == pytest.approx(-0.05)
    assert int(area["samples"]) == 10


def test_every_severity_is_in_a_table(written: Path) -> None:
    rows = lines((written / "report/tables/attacks.csv").read_text())
    assert {(r["row"], float(r["0.1"]), float(r["0.2"])) for r in rows} == {
        ("softmax", 0.6, 0.4),
        ("softmax (A/A)", 0.6, 0.4),
        ("l2", 0.6, 0.2),
    }
    rows = lines((written / "report/tables/collapse.csv").read_text())
    clean = next(r for r in rows if r["row"] == "l2" and r["input"] == "clean")
    assert [float(clean[f"layer_{n}"]) for n in (0, 1, 2)] == pytest.approx([0.045, 0.145, 0.245])


def test_files_hold_full_records(written: Path) -> None:
    records = pd.read_parquet(written / "report/records.parquet")
    # Three rows; accuracy and three layers at clean, two of pgd, two of blur and one of patch; and a cost.
    assert len(records) == 3 * (6 * 4 + 1)
    for name in ("attack", "corruption", "severity", "contamination", "collapse", "link", "cost"):
        for kind in ("svg", "png", "csv"):
            assert (written / f"report/figures/{name}.{kind}").stat().st_size > 100
    assert "\\toprule" in (written / "report/tables/ranking.tex").read_text()
    assert (written / "report/tables/ranking.md").read_text().count("| softmax") == 2


def test_page_is_whole_and_fetches_nothing(written: Path) -> None:
    text = (written / "report/index.html").read_text()
    found = Page(text)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert [link for link in found.links if not link.startswith(("#", "data:"))] == []
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(found.ids)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<img", text)
    assert len(text) < 3_000_000
    assert "NaN" not in text
    assert not re.search(r"\bnan\b", text)
    assert "attnbench report: tiny-0" in text
    assert "draft" in text


def test_one_network_never_makes_a_method_better(written: Path) -> None:
    said = verdict(board(load(written)))
    assert said.headline.startswith("No method may be called better or worse")
    assert any("softmax (A/A) minus softmax is 0.0 points" in line for line in said.noise)
    assert "cannot be concluded" in said.sentences[-1]


def test_two_writes_are_equal(written: Path, tmp_path: Path) -> None:
    files = [path.relative_to(written / "report") for path in sorted((written / "report").rglob("*.*"))]
    write(written, tmp_path)
    assert files == [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*.*"))]
    for file in files:
        assert (written / "report" / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_current_until_a_file_changes(plan: Any, tmp_path: Path) -> None:
    made = plan(labels=("softmax",), shifts={"clean": (("0",),)}, costs=False)
    store = made.write(tmp_path)
    assert not is_current(tmp_path)
    index = write(tmp_path)
    assert is_current(tmp_path)
    assert not is_current(tmp_path, tmp_path / "elsewhere")
    cell = store.cell_path(made.cells()[0]["key"])
    facts = cell.stat()
    os.utime(cell, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert not is_current(tmp_path)
    os.utime(cell, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert is_current(tmp_path)
    store.publish_attempt("k", {"kind": "cell", "reason": "out of memory"})
    assert not is_current(tmp_path)
    write(tmp_path)
    assert is_current(tmp_path)
    index.unlink()
    assert not is_current(tmp_path)


def test_asking_loads_neither_pandas_nor_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from attnbench.reports.report import is_current;"
        "assert not is_current(Path('nowhere'));"
        "assert not {'pandas', 'matplotlib', 'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="attnbench run"):
        write(tmp_path)


INCOMPLETE = {
    "nothing": ({}, lambda cell: False),
    "attacks": ({"labels": ("softmax", "l2")}, lambda cell: cell["shift"] == "pgd"),
    "costs": ({}, lambda cell: cell["shift"] == "cost"),
    "one row without clean": ({"chance": None}, lambda cell: cell["label"] == "l2" and cell["shift"] != "clean"),
    "baseline not a row": ({"labels": ("l2",), "shifts": {"clean": (("0",),)}}, lambda cell: True),
    "no baseline": ({"baseline": None, "shifts": {"pgd": (("0.1",),)}, "costs": False}, lambda cell: True),
    "words": ({"labels": ("softmax",), "shifts": {"fgsm": (("soft", "hard"),)}, "costs": False}, lambda cell: True),
}


@pytest.mark.parametrize(("settings", "keep"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_incomplete_runs_are_reported(plan: Any, tmp_path: Path, settings: dict[str, Any], keep: Any) -> None:
    plan(**settings).write(tmp_path, keep)
    text = write(tmp_path).read_text()
    assert Page(text).open == []
    assert not re.search(r"\b[nN]a[nN]\b|None\b(?!:)", re.sub(r"<svg.*?</svg>|<style.*?</style>", "", text, flags=re.S))


def test_missing_cells_are_counted_with_their_reasons(plan: Any, tmp_path: Path) -> None:
    made = plan()
    store = made.write(tmp_path, lambda cell: cell["shift"] != "blur" and cell["label"] != "l2")
    blur = next(cell for cell in made.cells() if cell["shift"] == "blur")
    trained = next(cell for cell in made.cells() if cell["label"] == "l2")["model"]
    failed = {"kind": "cell", "label": "softmax", "what": "blur", "transient": True, "started": "2030"}
    store.publish_attempt(blur["key"], {**failed, "reason": "out of memory"})
    store.publish_attempt(trained, {"kind": "train", "label": "l2", "what": "training", "reason": "loss is not finite"})
    found = tables(board(load(tmp_path)))
    rows = {(r[0].text, r[1].text, r[2].text): r[3].value for r in found.missing.rows}
    assert rows["softmax", "blur", "failed: out of memory"] == 1
    assert rows["softmax", "blur", "not run yet"] == 1
    assert rows["l2", "pgd", "blocked: its network has none (loss is not finite)"] == 1
    assert sum(int(str(count)) for count in rows.values()) == 2 + 2 + 6
    text = page(board(load(tmp_path)), found, {})
    assert "loss is not finite" in text
    assert "out of memory" in text


def test_null_and_invalid_numbers_are_shown_with_their_reason(plan: Any, tmp_path: Path) -> None:
    made = plan(labels=("softmax", "l2"), shifts={"clean": (("0",),), "pgd": (("0.1",),)}, costs=False)
    store = made.write(tmp_path, lambda cell: False)
    for cell in made.cells():
        document, outcomes = made.document(cell)
        for record in document["records"]:
            if cell["shift"] == "pgd" and cell["label"] == "l2" and record["metric"] == "accuracy":
                record |= {"status": "invalid", "reason": "left the ball"}
            if cell["shift"] == "clean" and record["metric"] == "token_cosine":
                record |= {"status": "null", "value": None, "deviation": None, "reason": "too few tokens"}
        store.publish_cell(cell["key"], document, outcomes)
    text = write(tmp_path).read_text()
    assert "<s>80.0</s>" in text
    assert "invalid: left the ball" in text
    assert "too few tokens" in text
    order = board(load(tmp_path)).order
    assert order[-1] == "l2"
    ranked = next(r for r in lines((tmp_path / "report/tables/ranking.csv").read_text()) if r["row"] == "l2")
    assert ranked["place"] == "-"


def test_names_are_escaped(plan: Any, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>_&%$x$ \\input{a}|b"
    plan(labels=("softmax", name)).write(tmp_path)
    text = write(tmp_path).read_text()
    found = Page(text)
    assert found.open == []
    assert "script" not in found.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;_&amp;%$x$" in text
    latex = (tmp_path / "report/tables/ranking.tex").read_text()
    assert r"\textless{}script\textgreater{}" in latex
    assert r"\_\&\%\$x\$ \textbackslash{}input\{a\}\textbar{}b" in latex
    assert r"\<script\>" in (tmp_path / "report/tables/ranking.md").read_text()
    assert lines((tmp_path / "report/tables/ranking.csv").read_text())[0]["row"] in {"softmax", name}


def seeded(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
    """l2 keeps 2 of 10 under attack and 3 with an odd seed; the others keep 8 and 7."""
    right = 8 if shift != "pgd" else (2 + seed % 2 if label == "l2" else 8 - seed % 2)
    return [1.0] * right + [0.0] * (10 - right)


def test_several_networks_may_part_methods(plan: Any, tmp_path: Path) -> None:
    plan(seeds=(0, 1, 2, 3, 4), correct=seeded).write(tmp_path)
    read = board(load(tmp_path))
    said = verdict(read)
    assert said.headline == "On pgd, area to 0.2, under this protocol: l2 below softmax."
    criterion = read.criterion
    assert criterion is not None
    # Areas (0.8 + 3 x) / 4 with x = .8, .7, .8, .7, .8: mean .77, deviation .75 * sqrt(.012 / 4).
    found = read.estimate("softmax", criterion)
    assert found.value == pytest.approx(0.77)
    assert found.high == pytest.approx(0.77 + 2.776 * 0.75 * (0.012 / 4) ** 0.5 / 5**0.5, abs=1e-4)
    assert found.method == "Student t over 5 networks (1 fold, 5 seeds)"
    assert Page(page(read, tables(read), {})).open == []


def test_several_environments_are_told_apart(plan: Any, tmp_path: Path) -> None:
    made = plan(labels=("softmax",), shifts={"clean": (("0",),), "blur": (("1",),)}, costs=False)
    store = made.write(tmp_path)
    cell = made.cells()[0]
    document, outcomes = made.document(cell)
    store.publish_cell(cell["key"], {**document, "provenance": {**document["provenance"], "processor": "B"}}, outcomes)
    read = board(load(tmp_path))
    text = page(read, tables(read), {})
    assert "2 environments that differ in processor" in text
