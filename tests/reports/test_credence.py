"""Marks beside adversarial numbers: what is trusted, suspect, broken and not examined, and what that changes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.board import Board, board
from attnbench.reports.chapter import tables
from attnbench.reports.credence import Doubt, Spoken, merged
from attnbench.reports.gate import Gate
from attnbench.reports.minimum_norm import minimum_norms
from attnbench.reports.page import page
from attnbench.reports.run import load
from attnbench.reports.trust_sheet import raised_gates, trust, trust_sentence
from attnbench.reports.verdict import verdict

LINF = {"norm": "linf", "knowledge": "white_box"}
SHIFTS = {"clean": (("0",),), "pgd": (("0.1", "0.2"),), "fgsm": (("0.1", "0.2"),)}
ABOUT = {"pgd": LINF, "fgsm": {**LINF, "knowledge": "black_box"}}
SOUND = {"zero_gradient": {"count": 0, "n": 60}, "undeclared_randomness": {"count": 0, "n": 64}}
STEPS = {**SOUND, "steps_matter": {"weaker_only": 0, "stronger_only": 30, "n": 60}}
"""Twice the steps fool 30 samples more: a doubt about attacks with gradients."""
BLIND = {
    **SOUND,
    "zero_gradient": {"count": 58, "n": 60},
    "black_box_stronger": {"count": 40, "n": 60},
}
"""Nearly no gradient, and squares fool what it does not: numbers of attacks with gradients mean nothing."""
NOISY = {**SOUND, "undeclared_randomness": {"count": 3, "n": 64}}
"""Another answer from pass to pass: no number of any attack means anything."""


def correct(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
    """Fewer samples stand at larger severities, none at the last; l2 keeps more."""
    right = {"0": 8, "0.1": 6 if label == "l2" else 4, "0.2": 1}[severity]
    return [1.0] * right + [0.0] * (10 - right)


def made(plan: Any, root: Path, measured: Mapping[str, Mapping[str, Any]], right: int = 60, **settings: Any) -> Board:
    """Return a board whose rows were examined as `measured` says, by label; rows that it does not name were not."""
    wanted = {"shifts": SHIFTS, "about": ABOUT, "costs": False, "correct": correct, **settings}
    whole = plan(**wanted)
    store = whole.write(root)
    document = whole.run()
    for model in document["models"]:
        if model["label"] in measured:
            key = hashlib.sha256(f"trust {model['key']}".encode()).hexdigest()
            place = {name: model[name] for name in ("label", "fold", "training_seed")}
            cell = {**place, "key": key, "model": model["key"], "shift": "trust(norm=linf)", "family": "trust"}
            cell |= {"severities": ["0.1", "0.2"], "unit": "", "norm": "linf"}
            document["cells"].append(cell)
            content, table = whole.document(cell)
            facts = measured[model["label"]]
            trusted = {"trust": {"measured": dict(facts), "n": 64, "right": right}} if facts else {}
            content["facts"] = {"deterministic": True, **trusted}
            store.publish_cell(key, content, table)
    store.publish_run(document)
    return board(load(root))


def verdicts(read: Board) -> dict[str, str]:
    return {row[0].text: str(row[1].value) for row in trust(read).rows}


def test_a_trusted_row_carries_nothing(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, dict.fromkeys(("softmax", "softmax (A/A)", "l2"), SOUND))
    assert verdicts(read) == dict.fromkeys(("softmax", "softmax (A/A)", "l2"), "trusted")
    found = tables(read)
    chips = {entry.chip for table in found.all() if table.name != "ranking" for row in table.rows for entry in row}
    assert chips <= {"", "baseline", "A/A"}
    assert raised_gates(read).rows == ()
    assert trust_sentence(read).endswith("Trusted: all rows (L-inf).")


def test_a_suspect_number_is_shown_ranked_and_marked(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"softmax": SOUND, "softmax (A/A)": SOUND, "l2": STEPS})
    assert verdicts(read)["l2"] == "suspect"
    found = tables(read)
    ranked = {row[0].text: row for row in found.ranking.rows}
    assert ranked["l2"][2].chip == "suspect"
    assert ranked["l2"][2].note.startswith("suspect: steps matter: twice the steps fool more: 30 samples against 0")
    assert ranked["l2"][1].text != "-"
    assert ranked["l2"][3].chip == ""
    assert ranked["softmax"][2].chip == ""
    (gate,) = raised_gates(read).rows
    assert [entry.text for entry in gate][:3] == ["l2", "L-inf", "steps matter"]
    assert (gate[8].value, gate[9].text) == (30, "1 of 1")
    text = page(read, found, {})
    assert '<span class="chip suspect">suspect</span>' in text
    assert any("l2 minus softmax" in line and line.endswith("(suspect).") for line in verdict(read).sentences)


def test_a_broken_number_is_shown_and_never_compared(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"softmax": SOUND, "softmax (A/A)": SOUND, "l2": BLIND}, seeds=(0, 1))
    criterion = read.criterion
    assert criterion is not None
    estimate = read.estimate("l2", criterion)
    assert (estimate.status, estimate.value) == ("broken", pytest.approx((0.8 + 2 * 0.6 + 0.1) / 4))
    assert read.order == ["softmax", "softmax (A/A)", "l2"]
    found = tables(read)
    ranked = {row[0].text: row for row in found.ranking.rows}
    assert (ranked["l2"][1].text, ranked["l2"][2].chip, ranked["l2"][2].invalid) == ("-", "broken", False)
    difference = next(row for row in found.differences.rows if row[0].text == "l2" and "worst case" in row[1].text)
    assert difference[2].value is None
    assert difference[2].note.startswith("broken: zero gradient: 58 of 60")
    text = page(read, found, {})
    assert '<span class="chip broken">broken</span>' in text
    assert "<s>" not in text
    assert verdict(read).headline == "Nothing can be compared with softmax: l2 (broken)."


def test_doubts_about_gradients_leave_attacks_without_them_alone(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"l2": BLIND, "softmax": NOISY})
    sweeps = {sweep.shift: sweep for sweep in read.sweeps}

    def status(label: str, shift: str) -> str:
        return read.estimate(label, read.at(sweeps[shift], "0.1")).status

    assert [status("l2", shift) for shift in ("pgd", "fgsm", "worst case (linf)")] == ["broken", "ok", "broken"]
    assert [status("softmax", shift) for shift in ("pgd", "fgsm", "worst case (linf)")] == ["broken"] * 3
    assert read.estimate("l2", read.at(sweeps["clean"], "0")).status == "ok"


def test_doubts_about_the_plain_cross_entropy_touch_foreign_attacks_alone(plan: Any, tmp_path: Path) -> None:
    foreign = {"fgsm": {"chunk_coupled": True}}
    saturated = {**SOUND, "saturated_cross_entropy": {"count": 50, "n": 60}}
    about = {"pgd": LINF, "fgsm": {**LINF, "knowledge": "none"}}
    read = made(plan, tmp_path, {"l2": saturated}, about=about, declared=foreign)
    assert verdicts(read)["l2"] == "trusted"
    sweeps = {sweep.shift: sweep for sweep in read.sweeps}
    doubts = {shift: read.estimate("l2", read.at(sweeps[shift], "0.1")).doubt for shift in SHIFTS}
    assert doubts["pgd"] == ""
    assert doubts["fgsm"].startswith("saturated cross entropy: 50 of 60")
    assert read.estimate("l2", read.at(sweeps["worst case (linf)"], "0.1")).doubt == ""


def test_a_row_is_as_doubtful_as_its_worst_network(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"l2": SOUND}, seeds=(0, 1, 2))
    credence = read.credences["l2", "linf"]
    assert (credence.word, credence.examined, credence.networks) == ("trusted", 3, 3)
    bad = Gate("steps_matter", "suspect", 1.0, 9, 0.9, "9 of 9", "more steps")
    fine = bad._replace(verdict="ok", value=0.1)
    nothing = bad._replace(name="few_classes", verdict="not applicable")
    assert merged([[fine, nothing], [bad], [bad._replace(verdict="broken", reason="10 of 10")]]) == (
        Spoken(bad._replace(verdict="broken", reason="10 of 10"), 2),
    )


def test_chance_is_shared_between_the_networks_of_a_row(plan: Any, tmp_path: Path) -> None:
    """Of 60 samples 4 are beyond chance at 1 in 100 (binomial, 1 in 100 tolerated), and not at 1 in 2000."""
    slight = {**SOUND, "stuck_walk": {"count": 4, "n": 60}}
    one = made(plan, tmp_path / "one", {"l2": slight})
    many = made(
        plan, tmp_path / "many", {"l2": slight}, seeds=tuple(range(20)), labels=("l2",), shifts={"pgd": (("0.2",),)}
    )
    assert (one.credences["l2", "linf"].word, many.credences["l2", "linf"].word) == ("suspect", "trusted")


def test_without_an_examination_the_report_says_so(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {})
    assert set(verdicts(read).values()) == {"not examined"}
    assert trust_sentence(read) == (
        "Whether the adversarial numbers can be believed was not examined: no trust cell is done."
    )
    assert trust_sentence(read) in verdict(read).sentences


def test_few_right_samples_are_no_reason_to_trust(plan: Any, tmp_path: Path) -> None:
    """None of 30 seen leaves 1 - .05^(1/30), 10 %, possible; of 29 it would be more."""
    rows = {"softmax": SOUND, "l2": STEPS}
    few = made(plan, tmp_path / "few", rows, right=29)
    assert verdicts(few) == {"softmax": "not examined", "softmax (A/A)": "not examined", "l2": "suspect"}
    notes = {row[0].text: row[1].note for row in trust(few).rows}
    assert notes["softmax"] == "not examined: only 29 of 64 examined samples are right, too few to trust"
    assert "too few" not in notes["l2"]
    assert "no trust cell" not in trust_sentence(few)
    assert verdicts(made(plan, tmp_path / "enough", rows, right=30))["softmax"] == "trusted"


def test_what_is_never_examined_says_why(plan: Any, tmp_path: Path) -> None:
    about = {"pgd": {"norm": "patches"}, "fgsm": LINF}
    notes = [x.note for x in trust(made(plan, tmp_path / "a", {}, about=about, trust=64)).rows[0][1:]]
    assert notes == ["not examined: only balls of pixels, L-inf and L2, are examined", ""]
    read = made(plan, tmp_path / "b", {}, about=about, trust=0)
    assert trust(read).rows[0][2].note == "not examined: the protocol asks for none: trust = 0"
    assert trust_sentence(read).endswith("was not examined: the protocol asks for none.")


def test_nothing_left_is_not_too_high(plan: Any, tmp_path: Path) -> None:
    def fallen(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
        return [0.0] * 10 if severity == "0.2" else correct(label, fold, seed, shift, severity)

    read = made(plan, tmp_path / "a", {"l2": STEPS, "softmax": NOISY}, correct=fallen)
    pgd = next(sweep for sweep in read.sweeps if sweep.shift == "pgd")
    least, most = (read.at(pgd, severity) for severity in ("0.1", "0.2"))
    assert read.estimate("l2", least).doubt.startswith("steps matter")
    assert (read.estimate("l2", most).doubt, read.difference("l2", "softmax (A/A)", most).doubt) == ("", "")
    assert read.estimate("softmax", most).status == "broken"
    sizes = {(row[1].text, row[2].text): row[3].chip for row in minimum_norms(read).rows}
    assert sizes["pgd", "l2"] == "suspect"


def test_the_page_sends_doubts_about_valid_numbers_to_trust(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"l2": STEPS})
    text = page(read, tables(read), {})
    assert "Failed and invalid cells" in text
    assert 'why is said under <a href="#trust">Trust</a>' in text
    narrow = text[text.index("@media (max-width: 40rem)") : text.index("@media print")]
    assert "tbody th { white-space: normal; overflow-wrap: anywhere;" in narrow


def test_an_examination_without_evidence_is_none(plan: Any, tmp_path: Path) -> None:
    read = made(plan, tmp_path, {"l2": {}, "softmax": SOUND})
    assert verdicts(read) == {"softmax": "trusted", "softmax (A/A)": "not examined", "l2": "not examined"}
    assert "Trusted: softmax (L-inf); not examined: softmax (A/A) (L-inf), l2 (L-inf)." in trust_sentence(read)


def test_a_missing_examination_is_a_missing_cell_with_a_reason(plan: Any, tmp_path: Path) -> None:
    made(plan, tmp_path, {"l2": SOUND})
    run = load(tmp_path)
    key = next(cell["key"] for cell in run.planned if cell["family"] == "trust")
    (tmp_path / "cells" / f"{key}.json").unlink()
    read = board(load(tmp_path))
    found = tables(read)
    assert ["l2", "trust(norm=linf)", "not run yet"] in [[e.text for e in row[:3]] for row in found.missing.rows]
    assert "not examined: not run yet" in next(row[1].note for row in found.trust.rows if row[0].text == "l2")
    assert not any(sweep.family == "trust" for sweep in read.sweeps)
    assert found.doubts.rows == ()


def test_a_black_box_that_breaks_more_speaks_against_the_gradients(plan: Any, tmp_path: Path) -> None:
    """Of 40 samples the black box breaks 30 and the white box none: more than chance, without any examination."""

    def masked(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
        kept = {"fgsm": {"0.1": 10, "0.2": 0}}.get(shift, {}).get(severity, 40)
        return [1.0] * kept + [0.0] * (40 - kept)

    read = made(plan, tmp_path, {}, correct=masked, labels=("softmax",))
    credence = read.credences["softmax", "linf"]
    assert credence.word == "broken"
    gate = next(spoken.gate for spoken in credence.raised if spoken.gate.name == "black_box_cell_stronger")
    assert gate.reason.startswith("fgsm at 0.2: 40 of 40 samples")


def test_an_attack_at_eps_zero_changes_nothing(plan: Any, tmp_path: Path) -> None:
    def moved(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
        return [1.0, 1.0, 0.0] if (shift, severity, label) != ("pgd", "0", "l2") else [1.0, 0.0, 0.0]

    shifts = {"clean": (("0",),), "pgd": (("0", "0.2"),)}
    read = made(plan, tmp_path, {}, shifts=shifts, about={"pgd": LINF}, correct=moved)
    raised = {label: [s.gate.name for s in read.credences[label, "linf"].raised] for label in ("softmax", "l2")}
    assert "eps_zero_differs" in raised["l2"]
    assert "eps_zero_differs" not in raised["softmax"]


def test_one_step_against_many(plan: Any, tmp_path: Path) -> None:
    def led_astray(label: str, fold: int, seed: int, shift: str, severity: str) -> list[float]:
        return [float(shift != "fgsm" and severity != "0.2")] * 30

    declared = {"fgsm": {"single_step": True}, "pgd": {"settings": {"steps": 20}}}
    about = {"pgd": LINF, "fgsm": LINF}
    read = made(plan, tmp_path, {}, about=about, declared=declared, correct=led_astray, labels=("softmax",))
    (spoken,) = read.credences["softmax", "linf"].raised
    assert spoken.gate.name == "single_step_cell_stronger"
    assert spoken.gate.reason == "fgsm against pgd at 0.1: one step fools what the iterative attack does not: " + (
        "30 samples against 0 the other way"
    )


def test_how_a_row_was_attacked_stands_beside_its_verdict(plan: Any, tmp_path: Path) -> None:
    facts = {"opened": True, "taken_from_open": 7, "judged_alone": True, "coupling": 0.03}
    read = made(plan, tmp_path, {"l2": SOUND}, facts=lambda cell: facts if cell["label"] == "l2" else {})
    notes = {row[0].text: row[1].note for row in trust(read).rows}
    assert "every gradient path open, which gave the stronger point up to 7 times in a cell" in notes["l2"]
    assert "judged one sample at a time: others in a batch move its logits by up to 3 %" in notes["l2"]
    assert notes["softmax"] == ""


def test_of_two_doubts_the_worse_counts() -> None:
    mild, grave = Doubt("steps matter"), Doubt("no gradient", broken=True)
    assert mild.worse(grave) == grave.worse(mild) == grave
    assert mild.worse(Doubt("restarts matter")) == Doubt("steps matter; restarts matter")
    assert Doubt().worse(mild) == mild
    assert [doubt.word for doubt in (Doubt(), mild, grave)] == ["", "suspect", "broken"]
