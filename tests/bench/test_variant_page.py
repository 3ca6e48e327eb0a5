"""The page of variants says what the declarations say, and the committed one is what they give now."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.bench.catalog import ROOT, open_catalog
from attnbench.bench.catalogue_page import COMMAND, PAGE, built_in, catalogue_page
from attnbench.bench.cli.listing import ls
from attnbench.bench.declaration import Declared, Origin
from attnbench.bench.error import BadInput
from attnbench.models.variant import Reported, Variant

Attnbench = Callable[..., subprocess.CompletedProcess[str]]
PLAIN = Variant(
    name="plain",
    core=lambda: None,
    source="A paper",
    version=1,
    summary="It changes nothing.",
    formula="A v",
    family="b",
    attention_map="row_stochastic",
)
RICH = Variant(
    name="rich",
    core=lambda: None,
    source="Who 2024, arXiv:2406.13770; github.com/some/code",
    version=1,
    summary="It weighs by |q - k| and a <b> * c.",
    formula="|q - k| v",
    family="a",
    attention_map="signed",
    settings={"count": 4, "form": "paper", "keep": True},
    choices={"form": ("released", "paper")},
    causal="prefix",
    noise=("metric",),
    coupling_settings={"form": "released"},
    equivariant=False,
    layer_state=("first", "previous"),
    minimum_tokens=64,
    heads_multiple_of=2,
    needs_grid=True,
    extra_tokens="count",
    norm="center_norm",
    cost="linear",
    caveats=("Its seed was not read.",),
    detaches=("metric",),
    open_settings={"keep": False},
    extra_parameters="heads a layer",
    pretrained="impossible",
    calibrates=True,
    measured=("logit_spread",),
    control_for=("plain",),
    reported=(Reported(12.5, "%", "error|c", "one seed", "a log"),),
)


def page(*variants: Variant) -> str:
    return catalogue_page(Declared(variant, Origin("mine.py")) for variant in variants)


def cells(text: str) -> list[list[str]]:
    """Return the rows of a page's tables, cut at the bars that are not escaped."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in rows]


def test_the_committed_page_is_what_the_declarations_give() -> None:
    committed = ROOT / PAGE
    text = committed.read_text(encoding="utf-8") if committed.exists() else ""
    assert text == catalogue_page(built_in(open_catalog())), f"run `{COMMAND} > {PAGE}`, plugins not installed"


def test_a_plain_variant_is_one_row() -> None:
    assert cells(page(PLAIN))[1:] == [
        [
            *("`plain`", "`b`", "It changes nothing.", "`A v`", "row-stochastic", "matrix; added parameters: none"),
            *("causal", "lossy", "A paper", "-"),
        ]
    ]


def test_everything_that_a_declaration_says_is_in_its_row() -> None:
    _, row, _, number = cells(page(RICH))
    assert row == [
        "`rich`<br>`count=4`<br>`form=paper or released`<br>`keep=true`",
        "`a`",
        r"It weighs by \|q - k\| and a &lt;b> \* c.",
        r"`\|q - k\| v`",
        "signed",
        "linear; added parameters: heads a layer",
        "causal by prefix; reads the first layer's projections; reads the previous layer's projections; "
        "may draw noise (metric); depends on the order of the tokens; not applicable below 64 tokens; "
        "not applicable unless the number of heads is a multiple of 2; not applicable without a grid of patches",
        "impossible",
        "Who 2024, [arXiv:2406.13770](https://arxiv.org/abs/2406.13770); "
        "[github.com/some/code](https://github.com/some/code)",
        "A control for plain. It asks the backbone for the norm center_norm. "
        "It asks the backbone for extra tokens, as many as count says. "
        "It measures on training samples after every epoch and keeps that frozen. "
        "It is built with what is measured on a trained donor (logit_spread). "
        "By default no gradient flows through metric. keep=false opens every gradient path. "
        "With form=released the samples of a batch mix. Its seed was not read.",
    ]
    assert number == ["`rich`", "12.5 %", r"error\|c", "one seed", "a log"]


def test_a_variant_that_always_mixes_samples_says_so() -> None:
    _, row = cells(page(replace(PLAIN, batch_coupled=True)))
    assert row[-1] == "The samples of a batch mix."


def test_rows_are_sorted_by_family_then_name_and_counted() -> None:
    other = replace(PLAIN, name="other")
    text = page(PLAIN, RICH, other)
    assert "3 variants in 2 families." in text
    assert [row[0].partition("<br>")[0] for row in cells(text)[1:4]] == ["`rich`", "`other`", "`plain`"]


def test_whole_networks_and_an_empty_table_of_numbers_are_left_out() -> None:
    network = replace(RICH, builds="network")
    assert "1 variants in 1 families." in page(PLAIN, network)
    assert "papers report" not in page(PLAIN, network)


def test_every_built_in_variant_has_a_row_of_full_width_and_a_link_that_leads_to_it() -> None:
    catalog = open_catalog()
    text = catalogue_page(built_in(catalog))
    rows = [row for row in cells(text) if row[0].startswith("[")]
    assert {len(row) for row in rows} == {10}
    assert {len(row) for row in cells(text)} == {10, 5}
    links = [re.match(r"\[`(\w+)`\]\((.*?)\)", row[0]) for row in rows]
    found = {link[1]: (ROOT / PAGE).parent / link[2] for link in links if link}
    assert sorted(found) == [n for n in catalog.names("variant") if (ROOT / "models/variants" / f"{n}.py").exists()]
    assert all(path.resolve().is_file() and path.stem == name for name, path in found.items())


def test_the_page_is_made_without_torch() -> None:
    code = (
        "import sys; from attnbench.bench.catalog import open_catalog; from attnbench.bench.catalogue_page import *; "
        "catalogue_page(built_in(open_catalog())); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_prints_the_page_with_the_files_that_the_user_names(attnbench: Attnbench, tmp_path: Path) -> None:
    plugin = ROOT / "tests" / "plugins" / "sharper.py"
    done = attnbench("ls", "variants", "--markdown", "--variant", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (mine,) = (row for row in cells(done.stdout) if row[0].startswith("`sharper`"))
    assert len(mine) == 10


@pytest.mark.parametrize(("kind", "as_json"), [("metrics", False), ("variants", True)])
def test_other_lists_have_no_page(kind: str, as_json: bool) -> None:
    with pytest.raises(BadInput, match=r"`attnbench ls variants --markdown`"):
        ls(kind, as_json=as_json, as_markdown=True)
