"""The checks catch what they are for: every built-in variant passes, and every broken core fails where it should."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from attnbench.bench.catalog import open_catalog
from attnbench.bench.check.cost import use
from attnbench.bench.check.report import NAMES, check, chosen, examined, subjects
from attnbench.bench.check.subject import Size
from attnbench.bench.error import BadInput, UnknownName

Attnbench = Callable[..., subprocess.CompletedProcess[str]]
PLUGINS = Path(__file__).parent.parent / "plugins"
SLOW = ("compilation",)
"""Not in this process: the type checks that the tests switch on cannot be compiled."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def failures(*variants: str, **chosen: tuple[str, ...]) -> dict[str, str]:
    """Return what failed, with what was found and what to do."""
    found = check(*variants, **{"skip": SLOW, **chosen})
    return {f.check: f"{f.found}; {f.fix}" for f in found if f.status == "fail"}


def named() -> list[str]:
    """Every built-in variant, and every choice that is not its default."""
    catalog = open_catalog()
    names = []
    for name in catalog.names("variant"):
        variant = catalog.found["variant"][name].value
        names.append(name)
        for setting, allowed in getattr(variant, "choices", {}).items():
            others = [value for value in allowed if value != getattr(variant, "settings", {})[setting]]
            names += [f"{name}({setting}={str(value).lower()})" for value in others]
    return names


@pytest.mark.parametrize("name", named())
def test_every_built_in_variant_is_what_it_says(name: str) -> None:
    assert failures(name) == {}


class Fault(NamedTuple):
    check: str
    message: str
    follows: tuple[str, ...] = ()
    """Checks that fail as well, because what is wrong shows there too."""


BROKEN = {
    "hidden_detach": Fault("gradient_paths", r"gradient by k is blocked.*autograd 0, finite", ("training",)),
    "undeclared_detach": Fault("gradient_paths", r"gradient by v is blocked.*declare what is stopped in `detaches`"),
    "idle_detach": Fault("gradient_paths", r"detaches declares keys, but every path is open"),
    "future_leak": Fault("causality", r"causal layer 1: changing token \d+ and later .* earlier outputs.*through v;"),
    "batch_mean": Fault("batch", r"a sample's output moves by .* when its companions change", ("mask",)),
    "undeclared_noise": Fault("determinism", r"two calls .* differ.*ctx\.noise"),
    "training_noise": Fault("determinism", r"in training: two calls .* differ"),
    "wrong_shape": Fault(
        "shapes",
        r"returned \[2, 7, 3, 5\] where \[2, 3, 7, 5\] is expected",
        (
            *("parameters", "permutation", "causality", "mask", "parity", "checkpointing", "weights"),
            *("training", "attack"),
        ),
    ),
    "zero_over_zero": Fault("extremes", r"zeros give gradients that are not finite, by q, k, v.*torch\.where"),
    "dead_parameter": Fault("parameters", r"no gradient reaches blocks\.attention\.core\.gain", ("training",)),
    "wrong_map": Fault("attention_map", r"values of 1 do not come out as 1: off by 0\.5"),
    "hard_float32": Fault(
        "shapes",
        r"the output is torch\.float32 where the inputs are torch\.float64",
        ("parameters", "gradient_paths", "permutation", "attention_map", "checkpointing"),
    ),
    "ignored_mask": Fault("mask", r"what masked tokens hold moves the outputs of real ones"),
    "quadratic_memory": Fault("memory", r"cost=\"fused\", but twice the tokens multiply the bytes kept .* by 3\.9"),
    "untrue_lossless": Fault("pretrained", r"\"lossless\", but .* away from it; declare pretrained=\"lossy\""),
    "unclaimed_place": Fault("permutation", r"does not permute the outputs.*equivariant=False"),
    "secret_state": Fault("layer_state", r"it reads ctx\.previous without saying so"),
    "untold_parameters": Fault("parity", r"extra_parameters=\"none\", but there are 9 more"),
    "kept_between_calls": Fault("checkpointing", r"changes when blocks are computed again"),
    "lost_buffer": Fault("weights", r"after a round trip .* the logits move.*persistent buffers"),
    "stuck_parameter": Fault("training", r"3 steps do not move blocks\.attention\.core\.factor in any layer"),
    "unattackable": Fault("attack", r"RuntimeError: the factor is frozen, line 21 of unattackable\.py"),
    "other_default": Fault("declaration", r"setting 'factor' is 2\.0, the core's own default is 1\.0"),
}
ELSEWHERE = {"branch_on_value": Fault("compilation", r"does not compile into one graph.*no branch on a tensor")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_core_fails_where_it_should_and_is_told_why(name: str) -> None:
    found = failures(str(PLUGINS / "broken" / f"{name}.py"))
    fault = BROKEN[name]
    assert set(found) == {fault.check, *fault.follows}
    assert re.search(fault.message, found[fault.check])


def test_every_check_catches_something_and_every_broken_core_is_tried() -> None:
    table = {**BROKEN, **ELSEWHERE}
    assert {fault.check for fault in table.values()} == set(NAMES)
    assert set(table) == {path.stem for path in (PLUGINS / "broken").glob("*.py")}


SHARPER = (PLUGINS / "sharper.py").read_text()
UNTRUE = [
    ("batch_coupled=True", "batch", "it says that samples mix, and they do not"),
    ('attention_map="signed"', "attention_map", 'but no entry is negative; declare attention_map="row_stochastic"'),
    ('causal="no"', "causality", "a causal site is accepted; raise a ValueError in __init__"),
    ('layer_state=("first",)', "layer_state", "layer_state declares first, which moves nothing"),
    ('noise=("metric",)', "declaration", "noise names metric, which no choice draws"),
    ("calibrates=True", "declaration", "calibrates=True, but the core has no `calibrate`"),
    ('choices={"sharpness": (1.0, 3.0)}', "declaration", "settings has sharpness=2.0, which is no choice"),
    ('choices={"blunt": (1.0, 3.0)}', "declaration", "choices names 'blunt', which is no setting"),
    ('open_settings={"sharpness": 1.0}', "declaration", "only one of detaches and open_settings is given"),
    ('detaches=("q",), open_settings={"sharpness": 1.0}', "gradient_paths", "every path is open"),
    ('coupling_settings={"sharpness": 3.0}', "batch", "with sharpness=3.0 samples do not mix"),
    ('cost="linear"', "memory", "twice the tokens multiply the number of operations by 4.0"),
    ('extra_parameters="2 a head"', "parity", 'there are +0 beside softmax attention; declare extra_parameters="none"'),
    ('measured=("sharpness",)', "declaration", "nothing measures 'sharpness'"),
    ('name="sharpSoftmax"', "declaration", "the name is 'sharpSoftmax'; use lower snake case"),
]


def declared(folder: Path, fields: str) -> str:
    """Write the stranger's variant with some fields changed; return the path."""
    path = folder / "mine.py"
    text = SHARPER
    for field in re.findall(r"(\w+)=", re.sub(r"\{.*?\}", "", fields)):
        text = re.sub(rf"    {field}=.*,\n", "", text)
    path.write_text(text.replace("SHARPER = Variant(\n", f"SHARPER = Variant(\n    {fields},\n"))
    return str(path)


@pytest.mark.parametrize(("fields", "where", "message"), UNTRUE)
def test_an_untrue_declaration_of_a_sound_core_is_refuted(
    fields: str, where: str, message: str, tmp_path: Path
) -> None:
    assert message in failures(declared(tmp_path, fields), only=(where,), skip=())[where]


@pytest.mark.parametrize(
    "fields",
    [
        "minimum_tokens=64",
        "needs_grid=True",
        "minimum_tokens=64, needs_grid=True",
        "heads_multiple_of=2",
        'norm="center_norm"',
        'cost="matrix"',
        'causal="prefix"',
    ],
)
def test_demands_are_met_and_modest_claims_pass(fields: str, tmp_path: Path) -> None:
    assert failures(declared(tmp_path, fields)) == {}


@pytest.mark.parametrize(
    ("fields", "where", "note"),
    [
        ("equivariant=False", "permutation", "although equivariant=False; it may be claimed"),
        ('attention_map="nonnegative"', "attention_map", "row_stochastic may be claimed"),
        ('cost="matrix"', "memory", "nothing of tokens x tokens was seen"),
        ('attention_map="implicit"', "attention_map", "no fixed matrix acts on the values"),
    ],
)
def test_an_understatement_is_noted(fields: str, where: str, note: str, tmp_path: Path) -> None:
    (finding,) = check(declared(tmp_path, fields), only=[where])
    assert finding.status != "fail"
    assert note in finding.found


def test_a_declared_detach_is_found_where_it_is_and_named() -> None:
    stopped, opened = check("elliptical", "elliptical(gradient=open)", only=["gradient_paths"])
    assert stopped.status == opened.status == "pass"
    assert "gradient by v, previous.v is blocked" in stopped.found
    assert "autograd agrees" in opened.found


def test_what_has_no_causal_form_is_told_apart_from_settings_that_have_none() -> None:
    (finding,) = check("elliptical(statistic=median)", only=["causality"])
    assert finding.status == "not applicable"
    assert "running median" in finding.found


def test_a_causal_form_that_another_choice_has_is_found(tmp_path: Path) -> None:
    """The default looks at all tokens and refuses, `prefix` does not: such a variant is usable under a causal mask."""
    refusing = "        if site.causal and look == 'all':\n            raise ValueError('no causal form')\n"
    text = SHARPER.replace("sharpness: float) -> None:", "sharpness: float, look: str = 'all') -> None:")
    text = text.replace("        super().__init__()\n", f"        super().__init__()\n{refusing}")
    text = text.replace('"sharpness": 2.0}', '"sharpness": 2.0, "look": "all"}, choices={"look": ("all", "prefix")}')
    path = tmp_path / "looking.py"
    path.write_text(text)
    (finding,) = check(str(path), only=["causality"])
    assert finding.status == "pass"
    assert finding.found.endswith("only with look=prefix")
    path.write_text(text.replace(', choices={"look": ("all", "prefix")}', ""))
    assert failures(str(path), only=("causality",), skip=()) == {
        "causality": 'it refuses a causal site: no causal form; declare causal="no"'
    }


def test_memory_is_counted_in_bytes_of_the_tensors_that_are_made() -> None:
    """A matrix of heads x tokens x tokens float32 numbers is the largest tensor of explicit attention."""
    (subject,) = subjects(open_catalog(), [str(PLUGINS / "broken" / "quadratic_memory.py")])
    (face,) = subject.faces(size=Size(100), dtype=torch.float32, layers=[0])
    assert use(face).largest == 4 * 3 * 100 * 100
    (subject,) = subjects(open_catalog(), ["softmax"])
    (face,) = subject.faces(size=Size(100), dtype=torch.float32, layers=[0])
    used = use(face)
    assert used.largest < 4 * 3 * 100 * 100
    assert used.operations == 2 * 2 * 3 * 100 * 100 * 5


def test_a_core_that_raises_fails_its_checks_and_the_others_go_on(tmp_path: Path) -> None:
    bug = "        if ctx.mask is not None:\n            raise KeyError('a bug')\n"
    text = SHARPER.replace("        scale = self", f"{bug}        scale = self")
    path = tmp_path / "raising.py"
    path.write_text(text)
    line = text[: text.index("raise KeyError")].count("\n") + 1
    found = {f.check: f for f in check(str(path), skip=SLOW)}
    assert [name for name, f in found.items() if f.status == "fail"] == ["mask"]
    assert found["mask"].found == f"KeyError: 'a bug', line {line} of raising.py"
    assert list(found) == [name for name in NAMES if name not in SLOW]


def test_checking_leaves_the_global_generators_alone() -> None:
    state = torch.get_rng_state()
    (subject,) = subjects(open_catalog(), [str(PLUGINS / "broken" / "undeclared_noise.py")])
    findings = list(examined(subject, chosen((), SLOW)))
    assert torch.equal(state, torch.get_rng_state())
    waiting = [f.check for f in findings if "determinism fails: mend that first" in f.found]
    assert "gradient_paths" in waiting
    assert len(waiting) == 8


def test_an_entry_that_is_named_twice_is_checked_once() -> None:
    found = check("softmax", "elliptical", "elliptical(scaling=max)", only=["layer_state"])
    assert [finding.variant for finding in found] == ["softmax", "elliptical"]


def test_names_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown check 'masks'; did you mean 'mask'\?"):
        check("softmax", only=["masks"])
    with pytest.raises(UnknownName, match="unknown variant 'softmx'; did you mean 'softmax'"):
        check("softmx")
    with pytest.raises(BadInput, match="no check is left"):
        check("softmax", skip=NAMES)
    with pytest.raises(BadInput, match="whole network"):
        check(declared(tmp_path, 'builds="network"'))


def test_the_command_says_what_failed_and_why(attnbench: Attnbench, tmp_path: Path) -> None:
    broken = PLUGINS / "broken" / "branch_on_value.py"
    done = attnbench("check", broken, "--only", "compilation,mask", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    fault = ELSEWHERE["branch_on_value"]
    assert re.search(rf"fail: branch_on_value {fault.check}: .*{fault.message}", done.stdout)
    assert re.search(r"mask +pass", done.stdout)


def test_the_command_checks_lists_and_prints_json(attnbench: Attnbench, tmp_path: Path) -> None:
    arguments = ("check", "soft*", "quest:", "--only", "mask")
    assert attnbench(*arguments, cwd=tmp_path).returncode == 2
    done = attnbench("check", "softmax,quest", "elliptical(scaling=mean)", "--only=mask", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    documents = json.loads(done.stdout)
    assert [d["variant"] for d in documents] == ["softmax", "quest", "elliptical(scaling=mean)"]
    assert all(d["passed"] and d["findings"][0]["check"] == "mask" for d in documents)
    done = attnbench("check", "softmax", "quest", "--only=mask", cwd=tmp_path)
    assert re.search(r"quest +1 +0 +0 ", done.stdout)


@pytest.mark.campaign
def test_every_built_in_variant_passes_every_check_compilation_included(attnbench: Attnbench, tmp_path: Path) -> None:
    done = attnbench("check", "all", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    found = {
        entry["variant"]: {f["check"]: f["status"] for f in entry["findings"]} for entry in json.loads(done.stdout)
    }
    assert set(found) == set(open_catalog().names("variant"))
    assert all(statuses["compilation"] == "pass" for statuses in found.values())
