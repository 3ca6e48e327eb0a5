"""The graph of a protocol: what depends on what, and what its keys depend on."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import rfc8785

from attnbench.bench.catalog import open_catalog
from attnbench.bench.error import BadProtocol, UnknownName
from attnbench.bench.key import key_of
from attnbench.bench.plan import Plan, make_plan
from attnbench.bench.protocol import Protocol, ShiftLine, Statistics, find_protocol
from attnbench.bench.state import states
from attnbench.results.store import Store

BASE = Protocol(
    name="mine",
    version=1,
    question="?",
    task="digits",
    recipe="smoke",
    variants=("softmax", "elliptical", "softmax_matched"),
    shifts=(
        ShiftLine(shift="pgd", severities=("0.1", "0.2")),
        ShiftLine(shift="contrast", severities=("1", "2", "3")),
    ),
    costs=("parameters",),
    trust=0,
)


def planned(protocol: Protocol = BASE, only: Sequence[str] = ()) -> Plan:
    return make_plan(protocol, open_catalog(), only=only)


def test_a_ladder_is_one_cell_and_levels_are_one_each() -> None:
    cells = [node for node in planned().nodes if node.kind == "cell" and node.label == "softmax"]
    assert [(c.shift, c.severities) for c in cells] == [
        ("clean", ("0",)),
        ("pgd", ("0.1", "0.2")),
        ("contrast", ("1",)),
        ("contrast", ("2",)),
        ("contrast", ("3",)),
        ("cost", ()),
    ]


def test_a_matched_network_waits_for_its_donor() -> None:
    nodes = planned().nodes
    by_key = {node.key: node for node in nodes}
    matched = next(n for n in nodes if n.kind == "train" and n.label == "softmax_matched")
    (calibration,) = (by_key[key] for key in matched.needs)
    assert calibration.kind == "calibrate"
    (donor,) = (by_key[key] for key in calibration.needs)
    assert (donor.kind, donor.label) == ("train", "elliptical")
    order = [node.key for node in nodes]
    assert all(order.index(need) < order.index(node.key) for node in nodes for need in node.needs)


def test_a_donor_that_is_no_row_is_trained_all_the_same() -> None:
    nodes = planned(BASE.model_copy(update={"variants": ("softmax_matched",)})).nodes
    assert [n.label for n in nodes if n.kind == "train"] == ["elliptical", "softmax_matched"]
    assert {n.label for n in nodes if n.kind == "cell"} == {"softmax_matched"}


def test_the_aa_row_is_the_same_variant_from_other_seeds() -> None:
    plan = planned(BASE.model_copy(update={"aa_row": "softmax"}))
    seeds = {n.label: n.training_seed for n in plan.nodes if n.kind == "train"}
    assert seeds["softmax"] != seeds["softmax (A/A)"]
    assert [row.role for row in plan.rows] == ["variant", "variant", "control", "a/a"]


def test_keys_change_with_everything_that_moves_a_number_and_with_nothing_else() -> None:
    def key(**changes: object) -> str:
        plan = planned(BASE.model_copy(update=changes))
        return next(n.key for n in plan.nodes if n.kind == "cell" and n.label == "softmax" and n.shift == "pgd")

    same = key()
    other = (ShiftLine(shift="pgd(steps=7)", severities=("0.1", "0.2")),)
    for change in (
        {"noise_seed": 1},
        {"training_seeds": (1,)},
        {"folds": (1,)},
        {"recipe": "standard"},
        {"limit": 9},
        {"metrics": ("accuracy", "token_cosine")},
        {"shifts": (ShiftLine(shift="pgd", severities=("0.1", "0.3")),)},
        {"shifts": other},
        {"backbone": BASE.backbone.model_copy(update={"depth": 2})},
    ):
        if "shifts" in change and change["shifts"] == other:
            plan = planned(BASE.model_copy(update=change))
            assert next(n.key for n in plan.nodes if n.shift == "pgd(steps=7)") != same
        else:
            assert key(**change) != same, change
    for change in (
        {"question": "what?"},
        {"name": "yours"},
        {"version": 2},
        {"variants": ("softmax",)},
        {"shifts": BASE.shifts[:1]},
        {"statistics": BASE.statistics.model_copy(update={"confidence": 0.9})},
    ):
        assert key(**change) == same, change


def test_keys_are_the_digest_of_canonical_json() -> None:
    import hashlib

    node = planned().nodes[0]
    assert node.key == hashlib.sha256(rfc8785.dumps(node.specification)).hexdigest()
    assert key_of({"a": 1.0, "b": (1, 2)}) == key_of({"b": [1, 2], "a": 1})


def test_only_limits_the_work_and_not_the_board() -> None:
    plan = planned(only=["softmax"])
    assert {n.label for n in plan.nodes} == {"softmax"}
    assert {cell["label"] for cell in plan.document["cells"]} == {"softmax", "elliptical", "softmax_matched"}
    with pytest.raises(UnknownName, match="the rows of this protocol"):
        planned(only=["softmx"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone": BASE.backbone.model_copy(update={"patch": 3})},
            "images of 8 px cannot be cut into patches of 3 px",
        ),
        ({"training_seeds": (0, 1000), "aa_row": "softmax"}, "training seed 1000 is also that of an A/A twin"),
        ({"aa_row": "l2"}, "aa_row is 'l2', which is no row"),
        ({"statistics": Statistics(baseline="l2")}, "statistics.baseline is 'l2', which is no row"),
        ({"folds": (5,)}, "fold 5 does not exist: task 'digits' has folds 0 to 4"),
        (
            {"shifts": (ShiftLine(shift="pgd", severities=("0.2", "0.1")),)},
            "severities must be numbers from 0 that rise",
        ),
        ({"shifts": (ShiftLine(shift="pgd", severities=("much",)),)}, "severities must be numbers from 0 that rise"),
        ({"shifts": (ShiftLine(shift="pgd", severities=("1e999",)),)}, "severities must be numbers from 0 that rise"),
        (
            {"shifts": (ShiftLine(shift="pgd", severities=("0.1", "8")),)},
            "shift 'pgd': eps is in pixels from 0 to 1, got 8; did you mean 8/255?",
        ),
        (
            {"shifts": (ShiftLine(shift="torchattacks:FGSM", severities=("2",)),)},
            "eps is in pixels from 0 to 1, got 2; did you mean 2/255?",
        ),
        ({"tracks": ("smoke",)}, "the track 'smoke' is the protocol's own recipe; leave it out"),
        ({"tracks": ("smoke(epochs=6)",)}, "the track 'smoke(epochs=6)' is the protocol's own recipe; leave it out"),
        ({"tracks": ("trades", "trades(beta=6)")}, "the track 'trades(beta=6)' is named twice; leave one out"),
        ({"variants": ("softmax_matched(donor=softmax_matched)",)}, "needs a donor itself"),
    ],
)
def test_what_cannot_be_planned(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadProtocol) as error:
        planned(BASE.model_copy(update=change))
    assert message in str(error.value)


@pytest.mark.parametrize("eps", ["1.5", "256", "1e9"])
def test_an_eps_that_is_no_count_of_grey_values_has_no_hint(eps: str) -> None:
    with pytest.raises(BadProtocol) as error:
        planned(BASE.model_copy(update={"shifts": (ShiftLine(shift="pgd", severities=(eps,)),)}))
    assert str(error.value) == f"shift 'pgd': eps is in pixels from 0 to 1, got {eps}"


@pytest.mark.parametrize(
    ("shift", "severities"),
    [("pgd", ("0", "1")), ("pgd(norm=l2)", ("8",)), ("paper_line_2023", ("2",)), ("patch_fool", ("2",))],
)
def test_other_balls_and_conventions_have_other_units(shift: str, severities: tuple[str, ...]) -> None:
    plan = planned(BASE.model_copy(update={"shifts": (ShiftLine(shift=shift, severities=severities),)}))
    assert {n.severities for n in plan.nodes if n.shift == shift} == {severities}


def test_the_unit_of_an_eps_names_the_ball_however_it_was_chosen() -> None:
    shifts = ("fgsm", "pgd", "pgd(norm=l2)", "torchattacks:APGD", "attention_fool(norm=linf)", "attention_fool")
    lines = tuple(ShiftLine(shift=shift, severities=("1",)) for shift in shifts)
    found = {n.shift: n.unit for n in planned(BASE.model_copy(update={"shifts": lines})).nodes if n.shift in shifts}
    assert found == {
        "fgsm": "eps (L-inf, pixels)",
        "pgd": "eps (L-inf, pixels)",
        "pgd(norm=l2)": "eps (L2, pixels)",
        "torchattacks:APGD": "eps (L-inf, pixels)",
        "attention_fool(norm=linf)": "eps (L-inf, pixels)",
        "attention_fool": "patches, or eps (pixels)",
    }


def test_states(tmp_path: Path) -> None:
    plan, store = planned(), Store(tmp_path)
    assert set(states(plan, store).values()) == {"missing"}
    donor = next(n for n in plan.nodes if n.kind == "train" and n.label == "elliptical")
    store.publish_attempt(donor.key, {"transient": False, "reason": "NaN"})
    found = states(plan, store)
    assert found[donor.key] == "failed"
    assert {found[n.key] for n in plan.nodes if n.label == "softmax_matched"} == {"blocked"}
    assert {found[n.key] for n in plan.nodes if n.label == "softmax"} == {"missing"}
    assert states(plan, store, retry_failed=True)[donor.key] == "missing"


def test_a_transient_failure_is_retried_three_times(tmp_path: Path) -> None:
    plan, store = planned(), Store(tmp_path)
    key = plan.nodes[0].key
    for state in ("missing", "missing", "failed"):
        store.publish_attempt(key, {"transient": True, "reason": "memory"})
        assert states(plan, store)[key] == state


def test_a_network_that_nobody_needs_is_not_trained_again(tmp_path: Path) -> None:
    plan, store = planned(BASE.model_copy(update={"variants": ("softmax",)})), Store(tmp_path)
    for node in plan.nodes:
        if node.kind == "cell":
            cell = {"key": node.key, "cell": node.specification, "records": [], "facts": {}}
            store.publish_cell(node.key, {**cell, "timing": {"seconds": 1}, "provenance": {}}, None)
    assert [states(plan, store)[n.key] for n in plan.nodes if n.kind == "train"] == ["known"]


def test_the_drafted_board_is_planned() -> None:
    plan = make_plan(find_protocol("digits"), open_catalog())
    trained = [n for n in plan.nodes if n.kind == "train"]
    assert len(trained) == 5 * len(plan.rows)
    assert {n.fold for n in trained} == {0, 1, 2, 3, 4}


def test_every_row_stands_in_every_track() -> None:
    plan = planned(BASE.model_copy(update={"tracks": ("smoke(epochs=2)",), "aa_row": "softmax"}))
    labels = ["softmax", "elliptical", "softmax_matched", "softmax (A/A)"]
    assert [row.label for row in plan.rows] == [*labels, *(f"{label}+smoke(epochs=2)" for label in labels)]
    assert [row["track"] for row in plan.document["rows"]] == ["smoke"] * 4 + ["smoke(epochs=2)"] * 4
    trained = {n.label: n for n in plan.nodes if n.kind == "train"}
    for label in labels:
        first, second = (trained[name].specification for name in (label, f"{label}+smoke(epochs=2)"))
        assert {k for k in first if first[k] != second[k]} <= {"recipe", "donor"}
        assert second["recipe"]["settings"]["epochs"] == 2
    matched = trained["softmax_matched+smoke(epochs=2)"]
    assert matched.specification["donor"]["model"] == trained["elliptical+smoke(epochs=2)"].specification


def test_a_track_changes_no_key_of_the_first() -> None:
    one, two = (planned(BASE.model_copy(update={"tracks": tracks})) for tracks in ((), ("smoke(epochs=2)",)))
    assert {n.key for n in one.nodes} < {n.key for n in two.nodes}


def test_trust_is_examined_once_a_ball_over_all_of_its_severities() -> None:
    shifts = (
        ShiftLine(shift="pgd", severities=("0.1", "0.2")),
        ShiftLine(shift="fgsm", severities=("8/255", "0.1")),
        ShiftLine(shift="pgd(norm=l2)", severities=("1",)),
        ShiftLine(shift="paper_line_2023", severities=("1/255",)),
    )
    plan = planned(BASE.model_copy(update={"trust": 64, "shifts": shifts}))
    found = [n for n in plan.nodes if n.family == "trust" and n.label == "elliptical"]
    assert [(n.shift, n.severities) for n in found] == [
        ("trust(norm=linf)", ("8/255", "0.1", "0.2")),
        ("trust(norm=l2)", ("1",)),
    ]
    assert not [
        n
        for n in planned(BASE.model_copy(update={"trust": 64, "shifts": BASE.shifts[1:]})).nodes
        if n.family == "trust"
    ]


def test_a_stand_in_is_the_baseline_and_of_the_baseline_its_twin() -> None:
    plan = planned(BASE.model_copy(update={"trust": 64, "aa_row": "softmax"}))
    trained = {n.label: n for n in plan.nodes if n.kind == "train"}
    for label, lender in (("elliptical", "softmax"), ("softmax", "softmax (A/A)"), ("softmax (A/A)", "softmax")):
        (node,) = (n for n in plan.nodes if n.family == "trust" and n.label == label)
        assert node.needs == (trained[label].key, trained[lender].key)
        assert node.specification["sources"] == [trained[lender].specification]
    (alone,) = (
        n for n in planned(BASE.model_copy(update={"trust": 64})).nodes if n.family == "trust" and n.label == "softmax"
    )
    assert "sources" not in alone.specification


def test_cells_that_wait_for_other_networks_hold_up_no_others() -> None:
    """Two networks that lend each other points would wait for ever if their trainings were in the same groups."""
    plan = planned(BASE.model_copy(update={"trust": 64, "aa_row": "softmax"}))
    groups: dict[str, list[str]] = {}
    for node in plan.nodes:
        groups.setdefault(node.group, []).append(node.key)
    waits = {
        name: {need for key in keys for need in plan.by_key()[key].needs} - set(keys) for name, keys in groups.items()
    }
    done: set[str] = set()
    while ready := [name for name in waits if waits[name] <= done and not set(groups[name]) <= done]:
        for name in ready:
            done |= set(groups[name])
    assert done == {node.key for node in plan.nodes}


def test_transfer_leaves_out_the_network_itself() -> None:
    shift = ShiftLine(shift="transfer(sources=softmax+elliptical)", severities=("0.1",))
    plan = planned(BASE.model_copy(update={"shifts": (shift,), "variants": ("softmax", "elliptical")}))
    sources = {
        n.label: [source["variant"]["name"] + f"@{source['training_seed']}" for source in n.specification["sources"]]
        for n in plan.nodes
        if n.knowledge == "transfer"
    }
    assert sources == {"softmax": ["softmax@1000", "elliptical@0"], "elliptical": ["softmax@0", "elliptical@1000"]}


def test_what_a_row_does_not_show_is_not_attacked() -> None:
    shift = ShiftLine(shift="attention_fool")
    plan = planned(BASE.model_copy(update={"shifts": (shift,), "variants": ("softmax", "twicing")}))
    assert [n.label for n in plan.nodes if n.shift == "attention_fool"] == ["softmax"]
    assert plan.not_applicable == (("attention_fool on twicing", "it has no attention logits to attack"),)


def test_what_a_row_does_not_show_is_not_asked_by_one_setting_alone() -> None:
    shifts = (ShiftLine(shift="adversarial_patch"), ShiftLine(shift="adversarial_patch(place=attention)"))
    plan = planned(BASE.model_copy(update={"shifts": shifts, "variants": ("softmax", "twicing")}))
    asked = [(n.label, n.shift) for n in plan.nodes if n.shift.startswith("adversarial_patch")]
    assert ("twicing", "adversarial_patch") in asked
    assert ("softmax", "adversarial_patch(place=attention)") in asked
    reason = "it has no attention logits to attack"
    assert plan.not_applicable == (("adversarial_patch(place=attention) on twicing", reason),)
