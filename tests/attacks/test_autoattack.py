"""AutoAttack: the published sequences, survivors only, never weaker than a member, any number of classes."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.adversarial import autoattack as module
from attnbench.attacks.adversarial.autoattack import (
    AUTOATTACK,
    VERSIONS,
    dlr_or_difference_towards,
    dlr_or_margin,
    members,
)
from attnbench.attacks.adversarial.ladder import Found, Search, laddered
from attnbench.attacks.adversarial.look import Look
from attnbench.attacks.adversarial.objective import log_odds
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples

DRAW = Draw(0, "attack", "attack")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks of 4 steps, 2 targets, 12 queries."""
    monkeypatch.setattr(module, "STEPS", 4)
    monkeypatch.setattr(module, "TARGETS", 2)
    monkeypatch.setattr(module, "QUERIES", 12)


def run(samples: Samples, target: Any, severities: Sequence[str], **given: Any) -> tuple[Tensor, ...]:
    return AUTOATTACK.apply(samples, severities, DRAW, target, **{**AUTOATTACK.settings, **given})


def fooled(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    return network(pixels).argmax(1) != labels


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("standard", ["apgd ce 100 x1", "apgd-t 9x100 x1", "fab-t 9x100 x1", "square 5000 x1"]),
        (
            "plus",
            [
                "apgd ce 100 x5",
                "apgd dlr 100 x5",
                "fab 100 x5",
                "square 5000 x1",
                "apgd-t 9x100 x1",
                "fab-t 9x100 x1",
            ],
        ),
        ("rand", ["apgd ce 100 x1", "apgd dlr 100 x1"]),
    ],
)
def test_sequences_are_the_published_ones(version: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As `set_version` of the authors' code sets them; 20 passes for `rand`."""
    objectives = {log_odds: "ce", dlr_or_margin: "dlr"}

    def named(text: str) -> list[Search]:
        def search(samples: Samples, eps: float, draw: Draw, look: Look) -> Found:
            raise AssertionError("not to be run")

        search.__name__ = text
        return [search]

    makers: dict[str, Any] = {
        "apgd_searches": lambda norm, steps, n, loss, stream: named(f"apgd {objectives[loss]} {steps} x{n}"),
        "apgd_targeted_searches": lambda norm, steps, n, targets, towards: named(f"apgd-t {targets}x{steps} x{n}"),
        "fab_searches": lambda norm, steps, n: named(f"fab {steps} x{n}"),
        "fab_targeted_searches": lambda norm, steps, n, targets: named(f"fab-t {targets}x{steps} x{n}"),
        "square_searches": lambda norm, queries, n: named(f"square {queries} x{n}"),
    }
    seen: list[Any] = []

    def noted(*given: Any) -> tuple[Tensor, ...]:
        seen.extend([[search.__name__ for search in given[4]], given[5]])
        return ()

    for name, maker in {**makers, "laddered": noted}.items():
        monkeypatch.setattr(module, name, maker)
    samples = Samples(torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long), ("a",))
    run(samples, None, ("0.1",), version=version)
    assert seen == [expected, 20]
    assert list(VERSIONS) == list(AUTOATTACK.choices["version"])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("version", "norm", "eps"), [("standard", "linf", "0.02"), ("plus", "l2", "0.1")])
def test_what_a_member_fools_autoattack_fools(version: str, norm: str, eps: str, samples: Samples, target: Any) -> None:
    """All members draw the same noise alone, so the sequence fools the union of what they do."""
    (pixels,) = run(samples, target, (eps,), version=version, norm=norm)
    together = fooled(target.network, pixels, samples.labels)
    union = torch.zeros_like(together)
    for search in members(version, norm, 4, 12):
        (alone,) = laddered(samples, (eps,), DRAW, target, [search], 1)
        union |= fooled(target.network, alone, samples.labels)
    assert torch.equal(together, union)
    assert 4 < union.sum() < 37


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_balls_boxes_ladders_and_batches(norm: str, samples: Samples, target: Any) -> None:
    ladder = {"linf": ("0.02", "0.05"), "l2": ("0.1", "0.3")}[norm]
    batches = run(samples, target, ladder, norm=norm)
    small, large = (fooled(target.network, pixels, samples.labels) for pixels in batches)
    assert large.sum() > small.sum() > 4
    assert torch.equal(batches[1][small], batches[0][small])
    for text, pixels in zip(ladder, batches, strict=True):
        sizes = (pixels.double() - samples.pixels.double()).flatten(1).norm(p=math.inf if norm == "linf" else 2, dim=1)
        assert sizes.max() <= float(text) + (2**-23 if norm == "linf" else 1e-6 * float(text))
        assert 0 <= pixels.min() <= pixels.max() <= 1
    for rows in (range(18, -1, -1), range(19, 37)):
        part = run(samples.rows(rows), target, ladder, norm=norm)[1]
        assert torch.equal(part, batches[1][list(rows)])


def test_samples_that_fall_early_meet_no_later_attack(samples: Samples, target: Any) -> None:
    """At an eps of a half the first walk fools everyone: had Square begun, it alone would have looked 5000 times."""
    (pixels,) = run(samples, target, ("0.5",))
    assert fooled(target.network, pixels, samples.labels).all()
    assert len(target.shown) < 20


class Linear(nn.Module):
    """Logits W (x - 1/2) + b."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        self.weight = torch.randn(classes, 105, generator=generator)
        self.offset = torch.randn(classes, generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T.to(pixels) + self.offset.to(pixels)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("version", "classes"), [("plus", 2), ("plus", 3), ("standard", 4), ("rand", 2), ("rand", 3), ("standard", 11)]
)
def test_any_number_of_classes_falls_at_its_distance(version: str, classes: int, attackable: Any) -> None:
    """The smallest (z_y - z_j) / |w_y - w_j|_1, within 2 %; pixels stay away from 0 and 1."""
    network = Linear(classes)
    pixels = 0.45 + 0.1 * torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(3))
    logits, weight = network(pixels.double()), network.weight.double()
    labels = logits.argmax(1)
    apart = (weight[labels][:, None] - weight).norm(p=1, dim=2)
    radii = ((logits.gather(1, labels[:, None]) - logits) / apart).scatter(1, labels[:, None], torch.inf).amin(1)
    samples, radius = Samples(pixels, labels, ("a",)), radii.item()
    ladder = (f"{radius * 0.98:.9f}", f"{radius * 1.02:.9f}")
    inside, outside = run(samples, attackable(network), ladder, version=version)
    assert not fooled(network, inside, labels).any()
    assert fooled(network, outside, labels).all()


def test_below_its_classes_the_ratio_gives_way_to_the_difference() -> None:
    two, three = torch.tensor([[5.0, 2.0]]), torch.tensor([[5.0, 2.0, 1.0]])
    label, aim = torch.tensor([0]), torch.tensor([1])
    assert dlr_or_margin(two, label).tolist() == [-3]
    assert dlr_or_margin(three, label).tolist() == [-3 / 4]
    assert dlr_or_difference_towards(aim)(three, label).tolist() == [-3]
    four = torch.tensor([[5.0, 2.0, 1.0, 0.0]])
    assert dlr_or_difference_towards(aim)(four, label).tolist() == pytest.approx([-3 / 4.5])


class Noisy:
    """Three classes; the second wins where the mean pixel, with noise of a tenth, exceeds a half."""

    deterministic = False

    def __init__(self) -> None:
        self.draws: list[Draw] = []

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.draws.append(draw)
        score = 6 * (pixels.mean((1, 2, 3)) - 0.5) + 0.1 * draw.normal(ids, ())
        return torch.stack([torch.zeros_like(score), score, -3 + 0 * score], 1)


@pytest.mark.usefixtures("short")
def test_stochastic_models_meet_fresh_noise_throughout() -> None:
    """`rand`: two walks of 4 steps and their starts, every look of `passes` passes, each with the next stream."""
    ids = tuple(f"image-{i}" for i in range(11))
    samples = Samples(torch.full((11, 1, 2, 3), 0.4), torch.zeros(11, dtype=torch.long), ids)
    victim = Noisy()
    (pixels,) = run(samples, victim, ("0.3",), version="rand", passes=5)
    assert victim.draws == [DRAW.named("model").at(i) for i in range(2 * (4 + 1) * 5)]
    assert (pixels.mean((1, 2, 3)) > 0.55).all()


@pytest.mark.usefixtures("short")
def test_the_other_versions_run_on_stochastic_models_too() -> None:
    ids = tuple(f"image-{i}" for i in range(8))
    samples = Samples(torch.full((8, 1, 2, 3), 0.4), torch.zeros(8, dtype=torch.long), ids)
    (pixels,) = run(samples, Noisy(), ("0.3",), passes=2)
    assert (pixels.mean((1, 2, 3)) > 0.55).all()
    assert (pixels - samples.pixels).abs().max() <= 0.3 + 2**-23


def test_mistakes_are_named(samples: Samples, target: Any) -> None:
    with pytest.raises(ValueError, match="unknown version 'custom' for autoattack; choose from standard, plus, rand"):
        run(samples, target, ("0.1",), version="custom")
    with pytest.raises(ValueError, match="unknown norm 'l1' for APGD; choose from linf, l2"):
        run(samples, target, ("0.1",), norm="l1")
