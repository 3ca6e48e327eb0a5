"""Minimum-norm attacks: exact projections, known distances, promises of every rung, equality with others' hands."""

import copy
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchattacks
from scipy.optimize import brentq, linprog
from torch import Tensor, nn

from attnbench.attacks.adversarial.fab import (
    FAB,
    fab_approaches,
    fab_searches,
    fab_targeted_approaches,
    fab_targeted_searches,
)
from attnbench.attacks.adversarial.fab_t import FAB_T
from attnbench.attacks.adversarial.fmn import FMN, fmn_approaches
from attnbench.attacks.adversarial.hyperplane import shortest_way
from attnbench.attacks.adversarial.ladder import Search, laddered
from attnbench.attacks.adversarial.look import SMALLEST_BATCH, Look
from attnbench.attacks.adversarial.minimum_norm import Approach, smallest
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift, severity_value
from attnbench.attacks.target import ModuleTarget

DRAW = Draw(0, "attack", "attack")
LINF, L2 = ("0.005", "0.02", "0.05", "0.1"), ("0.02", "0.2", "0.5", "1")
ATTACKS: dict[str, tuple[Shift, dict[str, Any], tuple[str, ...]]] = {
    "fab linf": (FAB, {"steps": 2, "restarts": 2}, LINF),
    "fab l2": (FAB, {"steps": 2, "norm": "l2"}, L2),
    "fab_t linf": (FAB_T, {"steps": 2, "targets": 2}, LINF),
    "fab_t l2": (FAB_T, {"steps": 2, "targets": 1, "norm": "l2", "restarts": 2}, L2),
    "fmn linf": (FMN, {"steps": 6, "restarts": 2}, LINF),
    "fmn l2": (FMN, {"steps": 6, "norm": "l2"}, L2),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def run(
    name: str, samples: Samples, target: Any, severities: Sequence[str] = (), draw: Draw = DRAW, **given: Any
) -> tuple[Tensor, ...]:
    shift, usual, ladder = ATTACKS[name]
    return shift.apply(samples, severities or ladder, draw, target, **{**shift.settings, **usual, **given})


def norm_of(name: str) -> str:
    return name.split()[1]


def approaches(name: str, norm: str, steps: int = 100, restarts: int = 1, targets: int = 9) -> list[Approach]:
    if name == "fab_t":
        return fab_targeted_approaches(norm, steps, restarts, targets)
    return (fab_approaches if name == "fab" else fmn_approaches)(norm, steps, restarts)


def fooled(network: nn.Module, batches: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return `[rung, sample]`."""
    return torch.stack([network(pixels).argmax(1) != labels for pixels in batches])


def sizes(pixels: Tensor, clean: Tensor, norm: str) -> Tensor:
    delta = (pixels.double() - clean.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


def quickest(point: Any, slope: Any, rise: float, norm: str) -> Any:
    """Solve the problem with scipy: a linear program, or the root of the dual's derivative."""
    n = len(point)
    if norm == "l2":

        def reached(multiplier: float) -> float:
            return float(slope @ np.clip(multiplier * slope, -point, 1 - point)) - rise

        return np.clip(brentq(reached, -1e4, 1e4, xtol=1e-14, rtol=1e-14) * slope, -point, 1 - point)
    each = np.vstack([np.hstack([sign * np.eye(n), -np.ones((n, 1))]) for sign in (1, -1)])
    bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
    cost = np.append(np.zeros(n), 1)
    solved = linprog(cost, each, np.zeros(2 * n), np.append(slope, 0)[None], [rise], bounds)
    assert solved.success
    return solved.x[:-1]


@every_norm
def test_the_way_to_a_hyperplane_is_the_shortest_one(norm: str) -> None:
    random = np.random.default_rng(3)
    points = random.random((40, 13))
    points[random.random((40, 13)) < 0.4] = 0
    points[random.random((40, 13)) < 0.2] = 1
    slopes = random.standard_normal((40, 13)) * (random.random((40, 13)) < 0.8)
    farthest = (np.where(slopes > 0, 1 - points, -points) * slopes).sum(1)
    nearest = (np.where(slopes < 0, 1 - points, -points) * slopes).sum(1)
    shares = random.random(40)
    rises = shares * farthest + (1 - shares) * nearest
    ways = shortest_way(*map(torch.tensor, (points, slopes, rises)), norm).numpy()
    assert np.abs((ways * slopes).sum(1) - rises).max() < 1e-12
    assert (points + ways).min() > -1e-12
    assert (points + ways).max() < 1 + 1e-12
    order = np.inf if norm == "linf" else 2
    for way, point, slope, rise in zip(ways, points, slopes, rises, strict=True):
        best = quickest(point, slope, rise, norm)
        assert np.linalg.norm(way, order) == pytest.approx(np.linalg.norm(best, order), rel=1e-7, abs=1e-9)


@every_norm
def test_a_hyperplane_out_of_reach_leads_to_the_farthest_corner(norm: str) -> None:
    """The third pixel is at 1 already and the fourth does not matter; no slope at all leads nowhere."""
    points = torch.tensor([[0.25, 0.75, 1.0, 0.5]]).repeat(3, 1)
    slopes = torch.tensor([[1.0, -2.0, 3.0, 0.0], [1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    ways = shortest_way(points, slopes, torch.tensor([9.0, -9.0, 9.0]), norm)
    assert ways.tolist() == [[0.75, -0.75, 0.0, 0.0], [-0.25, 0.25, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


class Ran(NamedTuple):
    """What an attack returned for all samples and its usual severities."""

    name: str
    norm: str
    batches: tuple[Tensor, ...]
    looks: int


class Linear(nn.Module):
    """Logits W (x - 1/2) + b, so a point's distance to every border is known in every norm."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        self.weight = torch.randn(classes, 105, generator=generator)
        self.offset = 0.1 * torch.randn(classes, generator=generator)
        self.pixels = 0.45 + 0.1 * torch.rand(5, 3, 5, 7, generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T.to(pixels) + self.offset.to(pixels)

    def radii(self, norm: str) -> tuple[Tensor, Tensor]:
        """Return the classes of the pixels and the smallest (z_y - z_j) / |w_y - w_j| in the dual norm."""
        logits, weight = self(self.pixels.double()), self.weight.double()
        labels = logits.argmax(1)
        apart = (weight[labels][:, None] - weight).norm(p=1 if norm == "linf" else 2, dim=2)
        gaps = (logits.gather(1, labels[:, None]) - logits) / apart
        return labels, gaps.scatter(1, labels[:, None], torch.inf).amin(1)


@every_norm
@pytest.mark.parametrize("name", ["fab", "fab_t", "fmn"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_linear_models_fall_at_their_distance(name: str, norm: str, classes: int, attackable: Any) -> None:
    network = Linear(classes)
    labels, radii = network.radii(norm)
    samples = Samples(network.pixels, labels, tuple("abcde"))
    found = smallest(samples, DRAW, attackable(network), approaches(name, norm, 20 if name == "fmn" else 5), norm, 1)
    assert found.found.all()
    assert (network(found.pixels).argmax(1) != labels).all()
    assert found.norms.tolist() == pytest.approx(sizes(found.pixels, network.pixels, norm).tolist(), rel=1e-12)
    assert (found.norms >= radii * (1 - 1e-4)).all()
    assert (found.norms <= radii * 1.03).all()


@pytest.mark.parametrize(("name", "norm"), [("fab", "linf"), ("fmn", "l2")])
def test_of_many_classes_the_nearest_is_found(name: str, norm: str, attackable: Any) -> None:
    test_linear_models_fall_at_their_distance(name, norm, 101, attackable)


class Brightness(nn.Module):
    """Class 1 where the pixels sum to more than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, pixels: Tensor) -> Tensor:
        score = pixels.sum((1, 2, 3)) - self.threshold
        return torch.stack([torch.zeros_like(score), score], 1)


@every_norm
@pytest.mark.parametrize("name", ["fab", "fab_t", "fmn"])
def test_pixels_at_the_edge_of_the_box_leave_the_way_to_the_others(name: str, norm: str, attackable: Any) -> None:
    """28 white pixels cannot rise; 7 of 0.9 rise by 0.1, and 14 of 0.2 by what is left of 3.5, which is 0.2 each."""
    row = torch.cat([torch.full((28,), 1.0), torch.full((7,), 0.9), torch.full((14,), 0.2)])
    pixels = row.view(1, 1, 7, 7).repeat(2, 1, 1, 1)
    samples = Samples(pixels, torch.zeros(2, dtype=torch.long), ("a", "b"))
    network = Brightness(28 + 6.3 + 2.8 + 3.5)
    known = 0.2 if norm == "linf" else (7 * 0.1**2 + 14 * 0.2**2) ** 0.5
    found = smallest(samples, DRAW, attackable(network), approaches(name, norm, steps=20), norm, 1)
    assert found.norms.tolist() == pytest.approx([known, known], rel=0.03)
    assert (found.norms > known * (1 - 1e-5)).all()


def test_a_model_without_a_gradient_is_left_alone(attackable: Any) -> None:
    def constant(pixels: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.5]]).repeat(len(pixels), 1) + 0 * pixels.sum()

    samples = Samples(torch.rand(3, 1, 2, 3), torch.zeros(3, dtype=torch.long), ("a", "b", "c"))
    for name in ATTACKS:
        for pixels in run(name, samples, attackable(constant), steps=2):
            assert torch.equal(pixels, samples.pixels)
    found = smallest(samples, DRAW, attackable(constant), approaches("fmn", "l2", 5), "l2", 1)
    assert found.norms.tolist() == [torch.inf] * 3
    assert not found.found.any()


@pytest.fixture(scope="module", params=ATTACKS)
def ran(request: Any, samples: Samples, network: nn.Module, attackable: Any) -> Ran:
    target = attackable(network)
    name = request.param
    return Ran(name, norm_of(name), run(name, samples, target), len(target.shown))


def test_perturbations_stay_in_the_ball_and_in_the_box(ran: Ran, samples: Samples) -> None:
    for text, pixels in zip(ATTACKS[ran.name][2], ran.batches, strict=True):
        eps, moved = severity_value(text), sizes(pixels, samples.pixels, ran.norm)
        assert moved.max() <= (eps + 2**-23 if ran.norm == "linf" else eps * (1 + 1e-6))
        assert pixels.min() >= 0
        assert pixels.max() <= 1


def test_what_is_fooled_stays_fooled_by_the_same_image(ran: Ran, samples: Samples, network: nn.Module) -> None:
    verdicts = fooled(network, ran.batches, samples.labels)
    assert verdicts[-1].sum() > verdicts[0].sum() >= 4
    for (low, high), (smaller, larger) in zip(pairwise(verdicts), pairwise(ran.batches), strict=True):
        assert high[low].all()
        assert torch.equal(larger[low], smaller[low])


def test_one_search_serves_every_rung(ran: Ran, samples: Samples, target: Any) -> None:
    """Each rung looks at most once at what it shows; the search before them is the same."""
    (alone,) = run(ran.name, samples, target, ATTACKS[ran.name][2][-1:])
    assert ran.looks - len(target.shown) <= 3
    assert torch.equal(ran.batches[-1], alone)


def test_a_rung_shows_the_smallest_or_as_much_of_it_as_fits(ran: Ran, samples: Samples, target: Any) -> None:
    given = {**ATTACKS[ran.name][0].settings, **ATTACKS[ran.name][1]}
    counts = given["steps"], given["restarts"], given.get("targets", 9)
    found = smallest(samples, DRAW, target, approaches(ran.name.split()[0], ran.norm, *counts), ran.norm, 1)
    assert found.found.all()
    assert found.norms[:4].tolist() == [0] * 4
    assert 0 < found.norms[4:].min() < found.norms.max()
    for text, pixels in zip(ATTACKS[ran.name][2], ran.batches, strict=True):
        eps = severity_value(text)
        fits = found.norms <= eps
        assert torch.equal(pixels[fits], found.pixels[fits])
        assert torch.equal(fooled(target.network, [pixels], samples.labels)[0], fits)
        assert sizes(pixels, samples.pixels, ran.norm)[~fits].tolist() == pytest.approx([eps] * sum(~fits), rel=2e-5)


def test_batches_and_order_change_nothing(ran: Ran, samples: Samples, target: Any) -> None:
    for rows in ([5], range(36, 17, -1), range(17, -1, -1)):
        for all_, some in zip(ran.batches, run(ran.name, samples.rows(rows), target), strict=True):
            assert torch.equal(some, all_[list(rows)])


def test_global_state_and_inputs_are_left_alone(ran: Ran, samples: Samples, target: Any) -> None:
    clean = samples.pixels.clone()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert all(map(torch.equal, run(ran.name, samples, target), ran.batches))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(samples.pixels, clean)
    assert not any(pixels.requires_grad for pixels in ran.batches)


@every_attack
def test_a_clean_mistake_is_returned_unchanged_and_never_shown_again(name: str, samples: Samples, target: Any) -> None:
    for pixels in run(name, samples.rows(range(4)), target):
        assert torch.equal(pixels, samples.pixels[:4])
    assert len(target.shown) == 1


@every_attack
def test_small_batches_are_filled_up_and_eps_0_is_the_clean_image(name: str, samples: Samples, target: Any) -> None:
    pixels = run(name, samples.rows([5, 6]), target, ("0", "0.01"), steps=1)[0]
    assert {len(ids) for ids in target.shown} == {SMALLEST_BATCH}
    assert torch.equal(pixels, samples.pixels[5:7])


@every_norm
@pytest.mark.parametrize("name", ["fab", "fmn"])
def test_scale_and_offset_of_the_logits_change_nothing(
    name: str, norm: str, samples: Samples, network: nn.Module, attackable: Any
) -> None:
    """A power of two rounds nothing, so not a bit changes; 10^4 and an added 100 round, which may turn single walks."""

    def norms(changed: Any) -> Tensor:
        steps = 20 if name == "fmn" else 5
        return smallest(samples, DRAW, attackable(changed), approaches(name, norm, steps), norm, 1).norms

    plain = norms(network)
    assert torch.equal(norms(lambda pixels: network(pixels) * 2**13), plain)
    for changed in (lambda pixels: network(pixels) * 1e4, lambda pixels: network(pixels) + 100):
        assert norms(changed).quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist() == pytest.approx(
            plain.quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist(), rel=0.01
        )


@pytest.mark.parametrize(("name", "norm", "steps"), [("fab", "linf", 9), ("fmn", "linf", 20), ("fmn", "l2", 20)])
def test_restarts_only_shorten(name: str, norm: str, steps: int, samples: Samples, target: Any) -> None:
    once, thrice = (smallest(samples, DRAW, target, approaches(name, norm, steps, n), norm, 1).norms for n in (1, 3))
    assert (thrice <= once).all()
    assert (thrice < once).any()


def torchattacks_fab(network: nn.Module, samples: Samples, norm: str, eps: float) -> Tensor:
    """Return what 6 steps of its FAB find; it seeds the global generator."""
    name = {"linf": "Linf", "l2": "L2"}[norm]
    attack = torchattacks.FAB(network, norm=name, eps=eps, steps=6, n_classes=5, multi_targeted=False)
    with torch.random.fork_rng():
        found: Tensor = attack(samples.pixels, samples.labels)
    return found


def searched(searches: Sequence[Search], samples: Samples, eps: float, target: Any) -> Tensor:
    (pixels,) = laddered(samples, (str(eps),), DRAW, target, searches, 1)
    return pixels


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
def test_searches_fool_no_fewer_than_torchattacks(norm: str, eps: float, samples: Samples, target: Any) -> None:
    theirs = torchattacks_fab(target.network, samples, norm, eps)
    count = (fooled(target.network, [theirs], samples.labels)[0] & (sizes(theirs, samples.pixels, norm) <= eps)).sum()
    assert 4 < count < 37
    for searches in (fab_searches(norm, 6, 1), fab_targeted_searches(norm, 6, 1, 4)):
        pixels = searched(searches, samples, eps, target)
        assert fooled(target.network, [pixels], samples.labels).sum() >= count
        assert sizes(pixels, samples.pixels, norm).max() <= eps + 2**-23


def test_a_search_is_done_with_a_sample_as_soon_as_it_falls(samples: Samples, target: Any) -> None:
    """A ball of 0.5 is large enough for the first few steps of a hundred."""
    for search in (*fab_searches("linf", 100, 1), *fab_targeted_searches("linf", 100, 1, 1)):
        target.shown.clear()
        found = search(samples.rows(range(4, 12)), 0.5, DRAW, Look(target, DRAW))
        assert found.fooled.all()
        assert len(target.shown) < 20


def test_targets_beyond_the_last_class_cost_nothing(samples: Samples, target: Any) -> None:
    five = fab_targeted_searches("linf", 5, 1, 9)
    assert len(five) == 9
    found = five[4](samples.rows(range(4, 37)), 0.05, DRAW, Look(target, DRAW))
    assert len(target.shown) <= 2
    assert torch.equal(found.pixels, samples.pixels[4:])
    assert not found.fooled.any()


@pytest.fixture(scope="module")
def adv_lib() -> Iterator[Any]:
    """adv-lib, whose package imports visdom, which it needs for pictures alone, and parts of the old distutils."""
    missing = "visdom" not in sys.modules
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("adv_lib")
        from adv_lib import attacks
    yield attacks
    if missing:
        del sys.modules["visdom"]


@pytest.fixture(scope="module")
def foolbox() -> Any:
    """foolbox, which takes a filter from where scipy no longer keeps it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox")


def assert_no_weaker(
    ours: Tensor, theirs: Tensor, clean: Tensor, network: nn.Module, norm: str, labels: Tensor
) -> None:
    """Require that our median is no larger, and that we fool no fewer within any of 40 sizes."""
    found = torch.where(fooled(network, [theirs], labels)[0], sizes(theirs, clean, norm), torch.inf)
    assert ours.median() <= found.median()
    for eps in torch.linspace(0.05, 2, 40, dtype=torch.float64) * ours.median():
        assert (ours <= eps).sum() >= (found <= eps).sum()


@every_norm
def test_fmn_is_no_weaker_than_others(norm: str, samples: Samples, target: Any, adv_lib: Any, foolbox: Any) -> None:
    right = samples.rows(range(4, 37))
    ours = smallest(right, DRAW, target, approaches("fmn", norm), norm, 1).norms
    order, clean = float("inf") if norm == "linf" else 2, right.pixels
    theirs = [adv_lib.fmn(target.network, clean, right.labels, norm=order, steps=100)]
    model = foolbox.PyTorchModel(copy.deepcopy(target.network).eval(), bounds=(0, 1))
    attack = (foolbox.attacks.LInfFMNAttack if norm == "linf" else foolbox.attacks.L2FMNAttack)(steps=100)
    theirs.append(attack(model, clean, right.labels, epsilons=None)[0])
    if norm == "l2":
        theirs.append(adv_lib.ddn(target.network, clean, right.labels, steps=100))
        theirs.append(adv_lib.alma(target.network, clean, right.labels, num_steps=100, distance="l2"))
    for pixels in theirs:
        assert_no_weaker(ours, pixels, clean, target.network, norm, right.labels)


@every_norm
def test_fab_is_no_weaker_than_others(norm: str, samples: Samples, target: Any, adv_lib: Any) -> None:
    right = samples.rows(range(4, 37))
    ours = smallest(right, DRAW, target, approaches("fab", norm, steps=6), norm, 1).norms
    order = float("inf") if norm == "linf" else 2
    for theirs in (
        torchattacks_fab(target.network, right, norm, 9.0),
        adv_lib.fab(target.network, right.pixels.clone(), right.labels, norm=order, n_iter=6),
    ):
        assert_no_weaker(ours, theirs, right.pixels, target.network, norm, right.labels)


class Careless:
    """Always right but for one pass in twenty, and blind to the pixels."""

    deterministic = False

    def __init__(self, labels: dict[str, int]) -> None:
        self.labels = labels

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        wrong = draw.uniform(ids, ()) < 0.05
        classes = torch.tensor([self.labels[i] for i in ids])
        shown = torch.where(wrong, (classes + 1) % 5, classes)
        return 4 * nn.functional.one_hot(shown, 5).float() + 0 * pixels.sum((1, 2, 3))[:, None]


@pytest.mark.parametrize("name", ["fab linf", "fmn linf"])
def test_chance_errors_are_not_attacks(name: str) -> None:
    """On 50 fresh passes the error of 101 samples stays 5 %: five standard deviations of 5050 passes are 1.5 points."""
    ids = tuple(f"image-{i}" for i in range(101))
    victim = Careless({name: i % 5 for i, name in enumerate(ids)})
    labels = torch.tensor([victim.labels[i] for i in ids])
    samples = Samples(torch.rand(101, 1, 2, 3, generator=torch.Generator().manual_seed(1)), labels, ids)
    (pixels,) = run(name, samples, victim, ("0.1",), steps=2)
    judge = Draw(0, "attack", "judge")
    errors = [victim(pixels, ids, judge.at(i)).argmax(1) != labels for i in range(50)]
    assert abs(torch.stack(errors).double().mean().item() - 0.05) < 5 * (0.05 * 0.95 / 5050) ** 0.5


class Noisy:
    """Class 1 where the pixels' sum, blurred by noise of 0.03, is above 3."""

    deterministic = False

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        score = pixels.sum((1, 2, 3)) - 3 + 0.03 * draw.normal(ids, ())
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("name", ["fab l2", "fab_t linf", "fmn linf"])
def test_a_stochastic_model_is_attacked_with_the_whole_of_each_ball(name: str) -> None:
    """Six pixels of 0.4 reach a sum of 3 at 0.1 each, and one of 3.6 at 0.2; a mean of 8 passes has a noise of 0.0106.

    The border itself is where every other pass is right: a rung that showed it at every larger eps would not attack.
    """
    ids = tuple(f"image-{i}" for i in range(11))
    samples = Samples(torch.full((11, 1, 2, 3), 0.4), torch.zeros(11, dtype=torch.long), ids)
    unit = 1.0 if norm_of(name) == "linf" else 6**0.5
    ladder = tuple(f"{unit * share:.6f}" for share in (0.02, 0.1, 0.2))
    batches = run(name, samples, Noisy(), ladder, steps=6)
    for eps, pixels in zip(ladder, batches, strict=True):
        assert sizes(pixels, samples.pixels, norm_of(name)).max() <= float(eps) * (1 + 1e-6) + 2**-24
    for pixels, known in zip(batches, (2.52, 3.0, 3.6), strict=True):
        assert pixels.sum((1, 2, 3)).tolist() == pytest.approx([known] * 11, abs=5 * 2**0.5 * 0.0106)


def test_mistakes_are_named(samples: Samples, target: Any, attackable: Any) -> None:
    with pytest.raises(ValueError, match="rise"):
        run("fab linf", samples, target, ("0.2", "0.1"))
    with pytest.raises(ValueError, match="needs the model"):
        run("fmn linf", samples, None)
    with pytest.raises(ValueError, match="at least one sample"):
        run("fab_t linf", samples.rows([]), target)
    with pytest.raises(ValueError, match="passes must be at least 1, got 0"):
        run("fmn linf", samples, target, passes=0)
    for name, known in (("fab linf", "fab"), ("fab_t linf", "fab_t"), ("fmn linf", "fmn")):
        with pytest.raises(ValueError, match=f"unknown norm 'l1' for {known}; choose from linf, l2"):
            run(name, samples, target, norm="l1")
        with pytest.raises(ValueError, match="steps=0"):
            run(name, samples, target, steps=0)
    with pytest.raises(ValueError, match="targets=0"):
        run("fab_t linf", samples, target, targets=0)
    with pytest.raises(ArithmeticError, match="not finite"):
        run("fmn linf", samples, attackable(lambda pixels: network_of_nothing(pixels)))


def network_of_nothing(pixels: Tensor) -> Tensor:
    return torch.full((len(pixels), 5), torch.nan)


@every_norm
def test_smallest_points_fool_in_batches_of_every_shape(norm: str) -> None:
    """Convolutions round differently in other batches, and a point on the border itself would be judged by that."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    ).requires_grad_(False)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
    pixels = torch.rand(120, 3, 16, 16, generator=generator)
    samples = Samples(pixels, network(pixels).argmax(1), tuple(map(str, range(120))))
    for name in (f"fmn {norm}", f"fab {norm}"):
        (found,) = run(name, samples, ModuleTarget(network.eval()), ("20" if norm == "l2" else "1",), steps=20)
        for size in (120, 30, 9, 1):
            answers = torch.cat([network(part).argmax(1) for part in found.split(size)])
            assert (answers != samples.labels).all(), (name, size)
