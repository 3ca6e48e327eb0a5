"""Costs are measured as said: who runs when, what is made of times, which bytes are alive, what misses a goal."""

import gc
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from attnbench.bench.catalog import Entry, open_catalog
from attnbench.bench.cli import speed
from attnbench.bench.error import BadInput, UnknownName
from attnbench.bench.perf import layer as layer_module
from attnbench.bench.perf import measurement
from attnbench.bench.perf.comparison import Comparison
from attnbench.bench.perf.explicit_elliptical import explicit_elliptical
from attnbench.bench.perf.goal import EXPLICIT_FORM, FUSED, LAYER, goal, missed, verdict
from attnbench.bench.perf.layer import TimedLayer, remarks, size_of
from attnbench.bench.perf.live_memory import live_memory
from attnbench.bench.perf.measurement import FORMS, chosen, layers
from attnbench.bench.perf.paired_time import Pair, Times, Turn, ratio, schedule, timed
from attnbench.models.variant import Variant
from attnbench.models.variants.elliptical import ELLIPTICAL
from attnbench.models.variants.neutreno import NEUTRENO
from attnbench.models.variants.registers import REGISTERS
from attnbench.models.variants.softmax import SOFTMAX

Attnbench = Callable[..., subprocess.CompletedProcess[str]]
FLOAT = 4


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(text: str) -> None:
    """Say nothing."""


# Who runs when


def test_every_pair_runs_once_a_round_for_as_many_rounds_as_it_wants() -> None:
    turns = schedule([40, 7, 40], seed=0)
    assert [sorted(turn.pair for turn in own) for own in turns] == [[0, 1, 2]] * 7 + [[0, 2]] * 33


def test_the_order_is_drawn_for_each_round_and_either_side_may_be_first() -> None:
    turns = schedule([40, 40], seed=0)
    assert {tuple(turn.pair for turn in own) for own in turns} == {(0, 1), (1, 0)}
    assert {turn.reference_first for own in turns for turn in own} == {True, False}
    assert turns == schedule([40, 40], seed=0)
    assert turns != schedule([40, 40], seed=1)


def test_both_sides_of_a_pair_run_one_after_the_other_and_get_their_own_times() -> None:
    now, log = [0.0], []

    def taking(name: str, seconds: float) -> Callable[[], str]:
        def call() -> str:
            log.append(name)
            now[0] += seconds
            return name

        return call

    pairs = [Pair(taking("a", 3.0), taking("A", 2.0)), Pair(taking("b", 7.0), taking("B", 5.0))]
    turns = [[Turn(1, reference_first=False), Turn(0, reference_first=True)], [Turn(0, reference_first=False)]]
    found = timed(pairs, turns, clock=lambda: now[0])
    assert log == ["b", "B", "A", "a", "a", "A"]
    assert found == [Times([3.0, 3.0], [2.0, 2.0]), Times([7.0], [5.0])]


def test_the_garbage_collector_waits_until_the_clock_is_read() -> None:
    during = []
    timed([Pair(lambda: during.append(gc.isenabled()), lambda: None)], [[Turn(0, reference_first=False)]])
    assert during == [False]
    assert gc.isenabled()


# What is made of times


def test_a_drift_that_both_sides_share_cancels() -> None:
    reference = [1.0, 100.0, 3.0, 0.5, 20.0, 7.0, 11.0]
    assert ratio(Times([1.25 * t for t in reference], reference)) == (1.25, 1.25, 1.25)


def test_one_disturbed_round_does_not_move_the_ratio_of_medians() -> None:
    value, low, high = ratio(Times([2.0] * 20 + [1000.0], [1.0] * 21))
    assert (value, low, high) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_ratio_and_stays_within_what_was_seen() -> None:
    value, low, high = ratio(Times([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [2.0] * 7))
    assert value == 2.0
    assert 0.5 <= low < value < high <= 3.5


# Which bytes are alive


def test_memory_counts_what_is_referred_to_at_one_time() -> None:
    x = torch.zeros(100)
    assert live_memory(lambda: x + 1) == 100 * FLOAT
    assert live_memory(lambda: (((x + 1) + 1) + 1) + 1) == 200 * FLOAT
    assert live_memory(lambda: [x + i for i in range(5)]) == 500 * FLOAT


def test_memory_leaves_out_what_was_there_and_counts_a_storage_once() -> None:
    x = torch.zeros(10, 10)
    assert live_memory(lambda: x.view(100).add_(1)) == 0
    assert live_memory(lambda: x.T[2:].unsqueeze(0)) == 0
    assert live_memory(lambda: torch.zeros(1).expand(1000).view(10, 100)) == FLOAT
    assert live_memory(lambda: (x + 1)[:1]) == 100 * FLOAT


def test_memory_sees_what_the_backward_pass_keeps_and_makes() -> None:
    x, upstream = torch.zeros(100, requires_grad=True), torch.ones(100)

    def gradient() -> tuple[Tensor, ...]:
        return torch.autograd.grad(x.exp().exp(), x, upstream)

    # The two exponentials, which their derivatives need, and the gradient by each.
    assert live_memory(gradient) == 4 * 100 * FLOAT


def test_memory_sees_the_outputs_of_the_fused_kernel_and_no_map() -> None:
    q, k, v = (torch.randn(2, 3, 64, 16) for _ in range(3))
    assert live_memory(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * 3 * 64 * (16 + 1) * FLOAT


def test_the_explicit_form_holds_two_maps_at_one_time() -> None:
    q, k, v, before = (torch.randn(2, 3, 64, 4) for _ in range(4))
    # Logits and map are both alive while the output is made.
    maps, metric, change, output = 64 * 64, 4 * 4, 4, 64 * 4
    expected = 2 * 3 * (2 * maps + metric + change + output) * FLOAT
    assert live_memory(lambda: explicit_elliptical(q, k, v, before, 0.5)) == expected


# What is timed


def test_the_explicit_form_is_elliptical_attention() -> None:
    forms = measurement.elliptical_forms(tokens=33)
    ours, theirs = forms.fused(), forms.explicit()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    gradients = (torch.autograd.grad(y, forms.inputs, forms.upstream) for y in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.fixture
def one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "TOKENS_A_BATCH", 1)


@pytest.mark.usefixtures("one_sample")
@pytest.mark.parametrize("name", open_catalog().names("variant"))
def test_every_variant_can_be_timed_in_training(name: str) -> None:
    entry = open_catalog().variant(name)
    timed_layer = TimedLayer(entry.value, entry.settings, 65)
    found = timed_layer()
    for leaf, gradient in zip(timed_layer.leaves, found, strict=True):
        assert gradient is None or (gradient.shape == leaf.shape and bool(gradient.isfinite().all()))
    assert found[0] is not None
    assert bool(found[0].any())


@pytest.mark.usefixtures("one_sample")
def test_a_layer_reads_other_layers_and_pays_for_their_gradients() -> None:
    def gradients(layer: TimedLayer) -> tuple[bool, bool]:
        _, _, *others = layer()
        return others[2] is not None, others[5] is not None  # values of the first and the previous layer

    assert gradients(TimedLayer(SOFTMAX, {}, 65)) == (False, False)
    assert gradients(TimedLayer(NEUTRENO, NEUTRENO.settings, 65)) == (True, False)
    settings = {**ELLIPTICAL.settings, "gradient": "open"}
    assert gradients(TimedLayer(ELLIPTICAL, settings, 65)) == (False, True)


@pytest.mark.usefixtures("one_sample")
def test_tokens_that_a_variant_brings_are_timed_with_it_and_said() -> None:
    layer = TimedLayer(REGISTERS, {"count": 5}, 65)
    assert layer.x.shape == (1, 70, layer_module.DIM)
    assert layer.host.site.prefix_tokens == 1 + 5
    assert remarks(REGISTERS, {"count": 5}) == ["timed with 5 more tokens than its reference"]
    assert remarks(SOFTMAX, {}) == []


def test_patches_form_a_square_where_they_can() -> None:
    assert size_of(65) == (65, 1, (8, 8))
    assert size_of(1024) == (1024, 0, (32, 32))
    assert size_of(7) == (7, 0, None)
    assert size_of(1) == (1, 0, None)


@pytest.mark.usefixtures("one_sample")
def test_what_makes_no_sense_or_raises_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    plugin = (Path(__file__).parent.parent / "plugins" / "sharper.py").read_text()
    broken = plugin.replace('"sharper"', '"broken"').replace("def forward(", "def backward(")
    (tmp_path / "broken.py").write_text(broken)
    entries = chosen(open_catalog(), ["mom", str(tmp_path / "broken.py"), "softmax"])
    found = {(c.subject, c.quantity): c for c in layers(entries, 16, 5, silent)}
    unfit, failed = found["mom", "forward and backward"], found["broken", "forward and backward"]
    assert (unfit.status, unfit.reason, unfit.ratio) == ("not applicable", "needs 64 tokens, there are 16", None)
    assert (failed.status, failed.ratio) == ("failed", None)
    assert "forward" in failed.reason
    measured = found["softmax", "forward and backward"]
    assert measured.status == "measured", measured.reason
    assert measured.rounds == 5
    assert found["softmax", "live memory"].ratio == 1.0
    assert len(found) == 4
    assert speed.exit_code(list(found.values()), check=False) == 1


def test_what_takes_very_long_is_called_once_and_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "LONGEST", -1.0)
    calls: list[str] = []
    pair = Pair(lambda: calls.append("subject"), lambda: calls.append("reference"))
    ready = measurement.warmed(Comparison("slow", FUSED, "forward and backward", 65), pair, 21)
    (found,) = measurement.clocked([ready], "here", silent)
    assert calls.count("subject") == 1
    assert (found.rounds, found.low, found.high) == (1, None, None)
    assert found.ratio is not None
    assert verdict(found) == ""


def test_what_is_slow_gets_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(lambda: None, lambda: None)
    blank = Comparison("slow", FUSED, "forward and backward", 65)
    for share, rounds in ((-1, 5), (1e9, 21)):
        monkeypatch.setattr(measurement, "SLOW", share)
        assert measurement.warmed(blank, pair, 21).rounds == rounds


def test_whole_networks_are_left_out_and_refused_by_name() -> None:
    catalog = open_catalog()
    catalog.add_object("mine", torch.nn.Identity, "0" * 64)
    labels = [entry.label for entry in chosen(catalog, [])]
    assert labels == [name for name in catalog.names("variant") if name != "mine"]
    assert chosen(catalog, ["all"]) == chosen(catalog, [])
    with pytest.raises(BadInput, match=r"'mine' is a whole network"):
        chosen(catalog, ["mine"])


def test_variants_are_named_as_everywhere() -> None:
    assert [entry.label for entry in chosen(open_catalog(), ["quest", "l*2"])] == ["quest", "l2"]
    with pytest.raises(UnknownName, match=r"unknown variant 'qest'; did you mean 'quest'\?"):
        chosen(open_catalog(), ["qest"])


# What misses a goal


def comparison(**fields: Any) -> Comparison:
    blank = Comparison("quest", FUSED, "forward and backward", 197, ratio=1.1, low=1.0, high=1.2)
    return replace(blank, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"low": 1.02, "ratio": 1.05, "high": 1.1}, "met"),
        ({"low": 1.1, "ratio": 1.15, "high": 1.2}, "not decided"),
        ({"low": 1.101, "ratio": 1.15, "high": 1.2}, "missed"),
        ({"low": 5.0, "high": 5.0, "quantity": "live memory"}, ""),
        ({"low": 5.0, "high": 5.0, "tokens": 65}, ""),
        ({"low": 5.0, "high": 5.0, "subject": "softmax"}, ""),
        ({"low": None, "high": None, "ratio": None, "status": "not applicable"}, ""),
        ({"subject": "mgk", "tokens": 1024, "low": 1.9, "high": 1.99}, "met"),
        ({"subject": "mgk", "tokens": 1024, "low": 2.01, "high": 2.1}, "missed"),
        ({"reference": EXPLICIT_FORM, "subject": "elliptical", "tokens": 1024, "low": 0.5, "high": 0.6}, "met"),
        (
            {
                "reference": EXPLICIT_FORM,
                "subject": "elliptical",
                "tokens": 1024,
                "quantity": "forward",
                "low": 0.46,
                "high": 0.5,
            },
            "missed",
        ),
        (
            {
                "reference": EXPLICIT_FORM,
                "subject": "elliptical",
                "tokens": 1024,
                "quantity": "forward",
                "low": 0.3,
                "high": 0.45,
            },
            "met",
        ),
        (
            {
                "reference": EXPLICIT_FORM,
                "subject": "elliptical",
                "tokens": 1024,
                "quantity": "live memory",
                "low": 0.11,
                "high": 0.11,
            },
            "missed",
        ),
    ],
)
def test_a_goal_is_missed_only_beyond_the_interval(fields: dict[str, Any], expected: str) -> None:
    one = comparison(**fields)
    assert verdict(one) == expected
    assert bool(missed([one])) == (expected == "missed")
    assert speed.exit_code([one], check=True) == (5 if expected == "missed" else 0)
    assert speed.exit_code([one], check=False) == 0


def test_goals_are_those_of_variants_that_exist() -> None:
    names = set(open_catalog().names("variant"))
    assert {name for goals in LAYER.values() for name in goals} <= names
    assert set(FORMS) <= names
    assert goal(comparison(subject="quest(other=1)")) is None


# The command


def given(monkeypatch: pytest.MonkeyPatch, *found: Comparison) -> None:
    monkeypatch.setattr(measurement, "measured", lambda *_: iter([list(found)]))


@pytest.mark.parametrize(("low", "code"), [(1.05, 0), (1.15, 5)])
def test_a_missed_goal_ends_with_5_and_is_named(
    low: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, comparison(low=low, ratio=1.18))
    with pytest.raises(typer.Exit) as end:
        speed.perf("variants", ["quest"], check=True)
    assert end.value.exit_code == code
    said = " ".join(capsys.readouterr().out.split())
    assert ("goal missed: quest, 197 tokens, forward and backward: 1.180, wanted at most 1.100" in said) == bool(code)


def test_the_table_shows_what_does_not_apply(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "needs 64 tokens, there are 16"
    unfit = comparison(
        subject="mom", tokens=16, status="not applicable", reason=reason, ratio=None, low=None, high=None
    )
    monkeypatch.setenv("COLUMNS", "200")
    given(monkeypatch, unfit, comparison(tokens=16), comparison(tokens=16, quantity="live memory", ratio=3.0))
    with pytest.raises(typer.Exit) as end:
        speed.perf("variants", ["mom,quest"], tokens="16")
    assert end.value.exit_code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["quest", "1.100", "1.000", "to", "1.200", "3.000", "-"] in rows
    assert ["mom", "-", "-", "-", "-", "not", "applicable:", *reason.split()] in rows


def test_nothing_to_check_is_no_success() -> None:
    for names, tokens in ((["quest"], "65,1024"), (["softmax"], "197"), (["gated(form=headwise)"], "197")):
        with pytest.raises(BadInput, match=rf"no goal for these variants at {tokens} tokens; leave out names or"):
            speed.perf("variants", names, tokens=tokens, check=True)


def test_a_check_without_names_measures_what_has_a_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], list[int]]] = []

    def measured(entries: list[Entry[Variant]], sizes: list[int], *_: object) -> Iterator[list[Comparison]]:
        asked.append(([entry.label for entry in entries], sizes))
        yield [comparison()]

    monkeypatch.setattr(measurement, "measured", measured)
    with pytest.raises(typer.Exit):
        speed.perf("variants", tokens="65,1024", check=True)
    assert asked == [(["differential", "elliptical", "mgk", "twicing"], [1024])]


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"unknown kind 'variant'; did you mean 'variants'\?"):
        speed.perf("variant")
    with pytest.raises(BadInput, match=r"4 repeats say nothing about their spread; give --repeats 5 or more"):
        speed.perf("variants", repeats=4)
    for text in ("", "65;197", "0", "1024,-3"):
        with pytest.raises(BadInput, match=r"numbers from 1 are expected"):
            speed.token_counts(text)
    assert speed.token_counts("197, 65,197") == [197, 65]


def test_the_command_prints_strict_json(attnbench: Attnbench, tmp_path: Path) -> None:
    done = attnbench(
        "perf", "variants", "quest,mom", "--tokens", "17", "--repeats", "5", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert document["rounds"] == 5
    assert document["provenance"]["threads"] == 1
    rows = {(c["subject"], c["quantity"]): c for c in document["comparisons"]}
    time, memory = rows["quest", "forward and backward"], rows["quest", "live memory"]
    assert time["low"] <= time["ratio"] <= time["high"]
    assert (time["rounds"], time["goal"], time["verdict"]) == (5, None, None)
    assert memory["ratio"] == memory["subject_cost"] / memory["reference_cost"]
    assert rows["mom", "forward and backward"]["reason"] == "needs 64 tokens, there are 17"
