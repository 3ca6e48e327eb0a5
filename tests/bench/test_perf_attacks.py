"""Attacks are timed as said: what both sides run, what is counted, what misses a goal, what the command shows."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from attnbench.attacks.adversarial.fgsm import FGSM
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.bench.cli import speed
from attnbench.bench.error import BadInput
from attnbench.bench.perf import attack, victim
from attnbench.bench.perf.attack import Attacked, Count, attacks, standing, theirs
from attnbench.bench.perf.comparison import Comparison
from attnbench.bench.perf.goal import TORCHATTACKS, goal, missed, verdict
from attnbench.bench.perf.saved_memory import saved_memory
from attnbench.bench.perf.victim import Victim, trained_on_digits, untrained_in_colour
from attnbench.bench.recipes.standard import STANDARD
from attnbench.bench.tasks.digits import load
from attnbench.models.variants.softmax import SOFTMAX
from attnbench.models.vit import VisionTransformerShape, build

FLOAT = 4
DRAW = Draw(0, "attack", "attack")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(text: str) -> None:
    """Say nothing."""


def images(count: int) -> Samples:
    pixels = torch.rand(count, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    return Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(f"image-{i}" for i in range(count)))


class Steady:
    """Always answers the same class, whatever the pixels."""

    deterministic = True

    def __init__(self, answer: int) -> None:
        self.answer = answer

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        return F.one_hot(torch.full((len(pixels),), self.answer), 5).float() + 0 * pixels.sum((1, 2, 3))[:, None]


# Which bytes are kept


def test_each_storage_is_counted_once_and_whole() -> None:
    x = torch.ones(10, 20, requires_grad=True)
    assert saved_memory(lambda: x * x) == 200 * FLOAT
    assert saved_memory(lambda: x[:1].exp() * 2) == 20 * FLOAT
    assert saved_memory(lambda: x[:1] ** 2) == 200 * FLOAT
    assert saved_memory(lambda: x.exp(), [x]) == 200 * FLOAT
    assert saved_memory(lambda: x * x, [x]) == 0
    with torch.no_grad():
        assert saved_memory(lambda: x * x) == 0


@pytest.mark.parametrize(("trainable", "kept"), [(True, 7 * (11 + 13 + 13)), (False, 7 * 13)])
def test_frozen_weights_keep_no_inputs_of_linear_layers(trainable: bool, kept: int) -> None:
    """A frozen layer needs its weight alone; GELU needs its input, and an open layer its input too."""
    network = nn.Sequential(nn.Linear(11, 13), nn.GELU(), nn.Linear(13, 5)).requires_grad_(trainable)
    x = torch.ones(7, 11, requires_grad=True)
    assert saved_memory(lambda: network(x), network.parameters()) == kept * FLOAT


# What is counted and run


def test_copies_that_fill_up_a_batch_are_no_evaluations() -> None:
    counting, three = Count(Steady(0)), images(3)
    counting(three.pixels[[0, 1, 2, 0, 0]], ("a", "b", "c", "a", "a"), DRAW)
    assert counting.evaluations == 3
    assert standing(three, ("0.1",), Steady(0)).work == 22 / 21


@pytest.mark.parametrize("severities", [("0.1",), ("0.1", "0.2", "0.3")])
def test_what_never_falls_costs_21_looks_an_eps_and_one_at_the_clean_image(severities: tuple[str, ...]) -> None:
    rungs = len(severities)
    found = standing(images(11), severities, Steady(0))
    assert found.work == pytest.approx((21 * rungs + 1) / (21 * rungs), rel=1e-12)
    assert found.shares == (1.0,) * rungs


def test_what_is_wrong_from_the_start_costs_one_look() -> None:
    found = standing(images(11), ("0.1", "0.2"), Steady(1))
    assert found.work == pytest.approx(1 / 42, rel=1e-12)
    assert found.shares == (0.0, 0.0)


def test_both_sides_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, float]] = []

    def recorded(network: nn.Module, **settings: float) -> Any:
        asked.append(settings)
        return lambda pixels, labels: pixels

    monkeypatch.setattr(attack, "attack_class", {"PGD": recorded}.__getitem__)
    theirs(images(3), ("0.1", "1/5"), nn.Identity())
    assert asked == [{"eps": e, "alpha": 0.25 * e, "steps": 20} for e in (0.1, 0.2)]


def tiny() -> Victim:
    network = build(SOFTMAX.core, {}, VisionTransformerShape(image=4, dim=16, depth=1, heads=2), 0).eval()
    pixels = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    some = Samples(pixels, torch.zeros(16, dtype=torch.long), tuple(map(str, range(16))))
    found = victim.victim("tiny", network, some, rungs=("1e-6",), ladders=(("0.1", "0.2"),))
    return found._replace(samples=found.answered())


def test_all_pairs_are_timed_and_the_bytes_counted() -> None:
    before = torch.get_rng_state()
    found, networks = attacks([tiny], 5, silent)
    assert torch.equal(torch.get_rng_state(), before)
    assert networks == {4: "tiny, 16 images"}
    assert [(c.quantity, c.severity, c.rounds) for c in found] == [
        ("attack", "1e-6", 5),
        ("ladder", "0.1,0.2", 5),
        ("saved memory", "1e-6", None),
    ]
    for c in found:
        assert None not in (c.low, c.ratio, c.high, c.subject_cost, c.reference_cost)
        assert c.low <= c.ratio <= c.high  # type: ignore[operator]
        assert c.reference == TORCHATTACKS
    assert found[0].work == 22 / 21
    assert found[0].standing == (1.0,)
    assert found[-1].ratio < 1  # type: ignore[operator]


def test_a_victim_is_one_function_frozen_and_open() -> None:
    found = untrained_in_colour()
    assert found.tokens == 64
    samples = found.samples.rows(range(9))
    logits = found.ours(samples.pixels, samples.ids, DRAW)
    assert torch.equal(logits, found.theirs(samples.pixels))
    assert torch.equal(logits.argmax(1), samples.labels)
    assert not any(p.requires_grad for p in found.ours.model.parameters())
    assert all(p.requires_grad for p in found.theirs.parameters())
    assert not found.theirs.training


def test_digits_keep_their_true_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[tuple[int, int, dict[str, Any]]] = []

    def fit(network: nn.Module, train: Samples, seed: int, **settings: Any) -> dict[str, float]:
        learned.append((len(train.ids), seed, settings))
        network.eval()
        return {}

    monkeypatch.setattr(victim, "STANDARD", replace(STANDARD, fit=fit))
    found = trained_on_digits()
    assert learned == [(len(load(0).train.ids), 0, dict(STANDARD.settings))]
    assert (found.tokens, len(found.samples.ids)) == (16, 256)
    assert torch.equal(found.samples.labels, load(0).test.labels[:256])
    wrong = found.answered().labels != found.samples.labels
    assert wrong.any()
    assert len(found.ladders[0]) == 6


# One gradient for all rungs of FGSM


class Asked:
    """A linear network that notes whether a gradient was asked for."""

    def __init__(self, deterministic: bool) -> None:
        self.deterministic = deterministic
        self.weight = torch.randn(72, 5, generator=torch.Generator().manual_seed(1))
        self.steepest: list[bool] = []

    def logits(self, pixels: Tensor) -> Tensor:
        return (4 * (pixels - 0.5).flatten(1)).tanh() @ self.weight

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.steepest.append(pixels.requires_grad)
        return self.logits(pixels)


def test_fgsm_asks_a_deterministic_model_for_one_gradient() -> None:
    """The images are those of a gradient for each eps, bit for bit: clip(x + eps sign) where nothing smaller fooled."""
    network, samples = Asked(deterministic=True), images(37)
    clean = network.logits(samples.pixels).argmax(1)
    samples = samples._replace(labels=torch.where(torch.arange(37) < 4, (clean + 1) % 5, clean))
    ladder = (0.001, 0.01, 0.02, 0.05)
    batches = FGSM.apply(samples, tuple(map(str, ladder)), DRAW, network, passes=1)
    assert network.steepest == [False, True, False, False, False, False]
    expected = samples.pixels.clone()
    for eps, found in zip(ladder, batches, strict=True):
        standing = network.logits(expected).argmax(1) == samples.labels
        pixels = samples.pixels.clone().requires_grad_()
        F.cross_entropy(network.logits(pixels), samples.labels, reduction="sum").backward()
        assert pixels.grad is not None
        stepped = (samples.pixels + eps * pixels.grad.sign()).clamp(0, 1)
        expected = torch.where(standing[:, None, None, None], stepped, expected)
        assert torch.equal(found, expected)
    assert 4 < int((network.logits(batches[-1]).argmax(1) != samples.labels).sum()) < 37


def test_fgsm_asks_a_stochastic_model_at_every_eps_and_pass() -> None:
    network = Asked(deterministic=False)
    FGSM.apply(images(9), ("0.01", "0.05"), DRAW, network, passes=3)
    assert network.steepest == ([True] * 3 + [False] * 3) * 2


# What misses a goal


def comparison(**fields: Any) -> Comparison:
    blank = Comparison("pgd", TORCHATTACKS, "attack", 16, ratio=0.5, low=0.4, high=0.6, severity="0.07", work=0.475)
    return replace(blank, **fields)


SIX = {"quantity": "ladder", "severity": "0.05,0.1,0.15,0.2,0.25,0.3", "standing": (0.5,) * 6}


@pytest.mark.parametrize(
    ("fields", "wanted", "expected"),
    [
        ({}, 0.5, "not decided"),
        ({"low": 0.51}, 0.5, "missed"),
        ({"high": 0.49}, 0.5, "met"),
        ({"work": 22 / 21, "low": 1.1, "high": 1.2}, 22 / 21 / 0.95, "not decided"),
        ({**SIX, "low": 0.3, "high": 0.33}, 1 / 3, "met"),
        ({**SIX, "low": 0.34, "high": 0.4}, 1 / 3, "missed"),
        ({**SIX, "severity": "0.02,0.05", "low": 0.9, "high": 0.9}, None, ""),
        ({"quantity": "saved memory", "work": None, "low": 0.75, "high": 0.75}, 0.75, "met"),
        ({"quantity": "saved memory", "work": None, "low": 0.76, "high": 0.76}, 0.75, "missed"),
    ],
)
def test_an_attack_has_to_save_what_it_leaves_out(fields: dict[str, Any], wanted: float | None, expected: str) -> None:
    one = comparison(**fields)
    assert goal(one) == pytest.approx(wanted)
    assert verdict(one) == expected
    assert bool(missed([one])) == (expected == "missed")


# The command


def given(monkeypatch: pytest.MonkeyPatch, *found: Comparison) -> list[int]:
    rounds: list[int] = []

    def measured(makers: object, count: int, say: object) -> Attacked:
        rounds.append(count)
        return Attacked(list(found), {16: "small digits [trained]"})

    monkeypatch.setattr(attack, "attacks", measured)
    return rounds


@pytest.mark.parametrize(("low", "code"), [(0.45, 0), (0.55, 5)])
def test_a_missed_goal_ends_with_5_and_is_named(
    low: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    memory = comparison(quantity="saved memory", severity="0", work=None, ratio=0.625, low=0.625, high=0.625)
    rounds = given(monkeypatch, comparison(low=low, ratio=0.575, standing=(0.25,)), memory)
    with pytest.raises(typer.Exit) as end:
        speed.perf("attacks", check=True)
    assert end.value.exit_code == code
    assert rounds == [15]
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["small", "digits", "[trained]:", "ours,", "times", "torchattacks"] in rows
    word = ["missed"] if code else ["not", "decided"]
    shown = ["pgd", "attack", "0.07", "25", "%", "0.475", "0.575", f"{low:.3f}", "to", "0.600", "0.500", *word]
    assert shown in rows
    assert ["pgd", "saved", "memory", "0", "-", "-", "0.625", "exact", "0.750", "met"] in rows
    line = "goal missed: pgd, 16 tokens, attack at eps 0.07: 0.575, wanted at most 0.500"
    assert (line in " ".join(said.split())) == bool(code)


def test_json_holds_every_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given(monkeypatch, comparison(standing=(0.25,)))
    with pytest.raises(typer.Exit) as end:
        speed.perf("attacks", repeats=5, as_json=True)
    assert end.value.exit_code == 0
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (document["rounds"], document["steps"]) == (5, 20)
    assert document["networks"] == {"16": "small digits [trained]"}
    (one,) = document["comparisons"]
    assert (one["work"], one["standing"], one["goal"], one["verdict"]) == (0.475, [0.25], 0.5, "not decided")


def test_what_means_nothing_is_refused() -> None:
    for options in ({"names": ["pgd"]}, {"tokens": "16"}):
        with pytest.raises(BadInput, match=r"takes neither names nor --tokens; leave them out"):
            speed.perf("attacks", **options)
    with pytest.raises(BadInput, match=r"give --repeats 5 or more"):
        speed.perf("attacks", repeats=3)
