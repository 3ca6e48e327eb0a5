"""`attnbench show`, `ls`, `status --keys` and `report` say what the files say, on cells written by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from attnbench.bench.catalog import open_catalog
from attnbench.bench.cli import execute, listing, page, show
from attnbench.bench.cli.show import severity_line
from attnbench.bench.cli.smallest import smallest
from attnbench.bench.error import BadInput, UnknownName
from attnbench.bench.node import Node
from attnbench.bench.plan import Plan, make_plan
from attnbench.bench.protocol import Protocol, ShiftLine
from attnbench.results.store import Store

MADE = {"started": "today", "attnbench": "0", "commit": "none", "packages": {"torch": "0"}}
MINE = Protocol(
    name="mine",
    version=1,
    question="?",
    task="digits",
    recipe="smoke",
    variants=("softmax",),
    shifts=tuple(
        ShiftLine(shift=shift, severities=("0.1",))
        for shift in ("pgd", "square", "fmn", "torchattacks:PGD", "pgd(norm=l2)")
    ),
)
SATURATED = {"saturated_cross_entropy": {"count": 30, "n": 40}}
BLIND = {"silent_success": {"count": 9, "n": 40}}


def invoke(*arguments: str | Path, width: int = 200) -> str:
    """Return what a command prints."""
    app = typer.Typer()
    for module in (execute, listing, page, show):
        module.attach(app)
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": str(width)})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.fixture
def plan() -> Plan:
    return make_plan(MINE, open_catalog())


@pytest.fixture
def store(plan: Plan, tmp_path: Path) -> Store:
    found = Store(tmp_path / "run")
    found.create()
    found.publish_run(plan.document)
    return found


def node_of(plan: Plan, shift: str) -> Node:
    return next(n for n in plan.nodes if n.shift == shift)


def publish(store: Store, node: Node, facts: Mapping[str, Any], outcomes: pa.Table | None = None) -> str:
    document = {"key": node.key, "cell": node.specification, "records": [], "timing": {"seconds": 1}}
    store.publish_cell(node.key, {**document, "facts": dict(facts), "provenance": MADE}, outcomes)
    return node.key


def examine(store: Store, plan: Plan, measured: Mapping[str, Any], norm: str = "linf") -> str:
    facts = {"measured": dict(measured), "norm": norm, "eps": 0.1, "n": 64, "right": 40}
    return publish(store, node_of(plan, f"trust(norm={norm})"), {"trust": facts})


def trust_of(store: Store, plan: Plan, shift: str) -> str:
    key = publish(store, node_of(plan, shift), {"deterministic": True})
    (line,) = (line for line in invoke("show", key, "--out", store.root).splitlines() if line.startswith("trust"))
    return line.removeprefix("trust").strip()


def test_an_attack_says_what_its_trust_cell_came_to(store: Store, plan: Plan) -> None:
    """A walk that loses 9 of 40 samples on its way concerns attacks with gradients alone, and one ball."""
    key = examine(store, plan, BLIND)[:12]
    reason = (
        "silent success: 9 of 40 samples are fooled on the way and not at the last step; more than 2 are not chance"
    )
    assert trust_of(store, plan, "pgd") == f"suspect: {reason} (cell {key})"
    assert trust_of(store, plan, "square") == f"trusted (cell {key})"
    waiting = node_of(plan, "trust(norm=l2)").key[:12]
    assert trust_of(store, plan, "pgd(norm=l2)") == f"not examined: the trust cell {waiting} is not done"


def test_what_blinds_the_cross_entropy_concerns_other_tools_alone(store: Store, plan: Plan) -> None:
    examine(store, plan, SATURATED)
    assert trust_of(store, plan, "pgd").startswith("trusted (cell ")
    assert trust_of(store, plan, "torchattacks:PGD").startswith("suspect: saturated cross entropy: 30 of 40 samples")


def test_without_a_trust_cell_nothing_is_examined(store: Store) -> None:
    plan = make_plan(MINE.model_copy(update={"trust": 0}), open_catalog())
    store.publish_run(plan.document)
    line = "not examined: no trust cell is planned for this network and ball"
    assert trust_of(store, plan, "pgd") == line
    (store.root / "run.json").unlink()
    assert trust_of(store, plan, "pgd") == line


def test_a_known_defect_stands_beside_the_numbers(store: Store, plan: Plan) -> None:
    key = publish(store, node_of(plan, "torchattacks:PGD"), {"deterministic": True})
    assert "warning  Returns the last step, not the first that fools.\n" in invoke("show", key, "--out", store.root)
    key = publish(store, node_of(plan, "clean"), {"deterministic": True})
    shown = invoke("show", key, "--out", store.root)
    assert "warning" not in shown
    assert "trust" not in shown


def table(rows: list[tuple[str, int, float, float]]) -> pa.Table:
    names = ("sample", "rung", "correct", "norm")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pa.table({**columns, "severity": [("0.1", "0.2")[rung] for rung in columns["rung"]]})


FELL = [
    ("error", 0, 0.0, 0.0), ("error", 1, 0.0, 0.0),
    ("soon", 0, 0.0, 0.04), ("soon", 1, 0.0, 0.05),
    ("late", 0, 1.0, 0.0), ("late", 1, 0.0, 0.15),
]  # fmt: skip
NEVER = [("never", 0, 1.0, 0.0), ("never", 1, 1.0, 0.0)]


def test_the_smallest_perturbation_is_that_of_the_first_severity_at_which_a_sample_falls() -> None:
    """Sizes 0, .04, .15 have the middle .04; with one that stands it lies between .04 and .15; with four, nowhere."""
    assert smallest(table(FELL), "linf") == [
        "smallest median 0.04 (linf) of 3 samples, errors counted as 0; 0 never fell"
    ]
    (line,) = smallest(table([*reversed(FELL), *NEVER]), "l2")
    assert line == "smallest median 0.095 (l2) of 4 samples, errors counted as 0; 1 never fell"
    more = [(f"{name}{i}", *rest) for i in range(4) for name, *rest in NEVER]
    (line,) = smallest(table([*FELL, *more]), "linf")
    assert line == "smallest median above 0.2 (linf) of 7 samples, errors counted as 0; 4 never fell"
    assert smallest(table(FELL).drop_columns(["norm"]), "linf") == []


@pytest.mark.parametrize(("shift", "deterministic", "count"), [("fmn", True, 1), ("fmn", False, 0), ("pgd", True, 0)])
def test_sizes_are_told_of_minimum_norm_attacks_on_models_without_noise(
    shift: str, deterministic: bool, count: int, store: Store, plan: Plan
) -> None:
    key = publish(store, node_of(plan, shift), {"deterministic": deterministic}, table(FELL))
    assert invoke("show", key, "--out", store.root).count("smallest median 0.04 (linf) of 3 samples") == count


def test_a_trust_cell_says_its_verdict_its_terms_and_what_to_do(store: Store, plan: Plan) -> None:
    shown = invoke("show", examine(store, plan, BLIND | SATURATED), "--out", store.root, width=80)
    assert "verdict  suspect (white box, torchattacks); trusted (black box, transfer)\n" in shown
    assert "samples  64 examined, 40 of them right without attack and attacked\n" in shown
    assert "eps      0.1 (linf), the reference eps of the walks\n" in shown
    assert " saturated_cross_entropy " in shown
    assert " undeclared_randomness " in shown
    advice = "believe attacks that keep the first point that fools; look for a gradient that leads astray"
    assert f"to do    silent_success: {advice}\n" in shown
    assert shown.count("to do") == 2
    assert "metric" not in shown
    calm = invoke("show", examine(store, plan, {}), "--out", store.root)
    assert "verdict  trusted\n" in calm
    assert "to do" not in calm


def test_a_swap_is_shown_with_the_attention_that_works_on_the_weights(store: Store) -> None:
    swapped = MINE.model_copy(update={"variants": ("softmax", "elliptical"), "swaps": (("softmax", "elliptical"),)})
    plan = make_plan(swapped, open_catalog())
    store.publish_run(plan.document)
    node = next(n for n in plan.nodes if n.swap and n.shift == "pgd" and n.label == "softmax" and not n.control)
    shown = invoke("show", publish(store, node, {"deterministic": True}), "--out", store.root)
    assert 'variant  {"name": "softmax"' in shown
    assert 'swap     {"attention": {"name": "elliptical"' in shown
    assert "trust    not examined" in shown


@pytest.mark.parametrize(
    ("largest", "valid", "moved"),
    [
        (0.0500000119, True, "moved by 0.05 (float32 rounding) of 0.05 (linf)"),
        (0.05, True, "moved by 0.05 of 0.05 (linf)"),
        (0.0123456789, True, "moved by 0.0123457 of 0.05 (linf)"),
        (0.06, False, "moved by 0.06 of 0.05 (linf)"),
    ],
)
def test_rounding_does_not_look_like_a_violation(largest: float, valid: bool, moved: str) -> None:
    pixels = {"lowest_pixel": 0.0, "highest_pixel": 1.0}
    fact = {"severity": "0.05", "budget": 0.05, "ball": "linf", "largest_perturbation": largest, **pixels}
    assert f", {moved}, " in severity_line({**fact, "valid": valid, "reason": "outside"})


def test_status_lists_the_keys_that_show_takes(store: Store, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nversion = 1\nquestion = "?"\ntask = "digits"\nrecipe = "smoke"\nvariants = ["softmax"]\n'
        '[[shifts]]\nshift = "pgd"\nseverities = ["0.1"]\n'
    )
    key = publish(store, node_of(plan, "pgd"), {"deterministic": True})
    shown = invoke("status", tmp_path / "mine.toml", "--keys", "--out", store.root).splitlines()
    assert f"{key[:12]}  cached   fold 0 seed 0     softmax  pgd 0.1" in shown
    assert [line.split()[1] for line in shown] == ["missing", "cached", "missing"]
    assert "--keys lists the cells" in invoke("status", tmp_path / "mine.toml", "--out", store.root)
    with pytest.raises(BadInput, match="`attnbench status PROTOCOL --keys` lists them"):
        invoke("show", "zzz", "--out", store.root)


def test_a_report_is_found_by_the_bare_name_of_a_users_protocol(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("mine-2", "mine-10", "mine-old-11"):
        store = Store(Path("runs") / folder)
        store.create()
        store.publish_run(plan.document)
    assert invoke("report", "mine") == "report: runs/mine-10/report/index.html\n"
    there = "the runs here are runs/mine-10, runs/mine-2, runs/mine-old-11"
    with pytest.raises((BadInput, UnknownName), match=f"unknown protocol 'yours'.*{there}"):
        invoke("report", "yours")


def test_shifts_are_listed_with_ball_and_severities_where_a_line_has_room() -> None:
    wide, narrow = (invoke("ls", "shifts", width=width) for width in (140, 80))
    (pgd,) = (line for line in wide.splitlines() if line.startswith("pgd "))
    assert pgd.rstrip().endswith("linf or l2       0.02 to 0.2")
    assert "severities" not in narrow.splitlines()[0]
    for shown in (wide, narrow):
        words = {word.strip(",") for word in shown.split()}
        assert {"place=saliency", "attention", "random", "corner", "attention_weight=0.002"} <= words
        assert "Every attack of torchattacks is a shift too, as torchattacks:PGD; docs/shifts.md lists them." in shown


def test_recipes_are_listed_with_a_sentence() -> None:
    summary = "Cross-entropy on the samples plus 6 times the divergence to their worst neighbours."
    assert open_catalog().recipe("trades").value.summary == summary
