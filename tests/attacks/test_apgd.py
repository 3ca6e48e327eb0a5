"""APGD: the algorithm against two others' hands, known radii, promises of every search, stochastic models."""

import math
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attnbench.attacks.adversarial.apgd import (
    Walkers,
    apgd_targeted_searches,
    ascend,
    border,
    checked,
    checkpoints,
    rivals,
)
from attnbench.attacks.adversarial.apgd_ce import APGD_CE
from attnbench.attacks.adversarial.apgd_dlr import APGD_DLR
from attnbench.attacks.adversarial.apgd_t import APGD_T
from attnbench.attacks.adversarial.ball import BALLS
from attnbench.attacks.adversarial.look import Look
from attnbench.attacks.adversarial.objective import Objective, difference_towards, dlr, log_odds
from attnbench.attacks.adversarial.pgd import PGD
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift, severity_value

DRAW = Draw(0, "attack", "attack")
LINF, L2 = ("0.005", "0.02", "0.05"), ("0.02", "0.1", "0.3")
ATTACKS: dict[str, tuple[Shift, dict[str, Any], tuple[str, ...]]] = {
    "apgd_ce linf": (APGD_CE, {"steps": 9, "restarts": 2}, LINF),
    "apgd_ce l2": (APGD_CE, {"steps": 9, "norm": "l2"}, L2),
    "apgd_dlr linf": (APGD_DLR, {"steps": 9}, LINF),
    "apgd_t l2": (APGD_T, {"steps": 5, "norm": "l2", "targets": 2}, L2),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def run(
    name: str, samples: Samples, target: Any, severities: Sequence[str] = (), draw: Draw = DRAW, **given: Any
) -> tuple[Tensor, ...]:
    shift, usual, ladder = ATTACKS[name]
    return shift.apply(samples, severities or ladder, draw, target, **{**shift.settings, **usual, **given})


def fooled(network: nn.Module, batches: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return `[rung, sample]`."""
    return torch.stack([network(pixels).argmax(1) != labels for pixels in batches])


class Linear(nn.Module):
    """Logits W (x - 1/2) + b, so a point's distance to every border is known in every norm."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        self.weight = scale * torch.randn(classes, 105, generator=generator)
        self.offset = scale * 0.1 * torch.randn(classes, generator=generator)
        self.pixels = 0.45 + 0.1 * torch.rand(1, 3, 5, 7, generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T.to(pixels) + self.offset.to(pixels)

    def radii(self, norm: str) -> tuple[Tensor, Tensor]:
        """Return the classes of the pixels and the smallest (z_y - z_j) / |w_y - w_j| in the dual norm."""
        logits, weight = self(self.pixels.double()), self.weight.double()
        labels = logits.argmax(1)
        apart = (weight[labels][:, None] - weight).norm(p=1 if norm == "linf" else 2, dim=2)
        gaps = (logits.gather(1, labels[:, None]) - logits) / apart
        return labels, gaps.scatter(1, labels[:, None], torch.inf).amin(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("shift", "classes"),
    [
        *((APGD_CE, classes) for classes in (2, 3, 5, 1000)),
        *((APGD_DLR, classes) for classes in (3, 5, 1000)),
        *((APGD_T, classes) for classes in (4, 5, 1000)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_linear_models_fall_at_their_distance(shift: Shift, norm: str, classes: int, attackable: Any) -> None:
    """The pixels stay away from 0 and 1. With logits 1e4 times larger the log-odds are the margin, where torchattacks'
    cross-entropy has no gradient; among classes that are equally near a walk may climb the wrong one, hence 3 restarts.
    """
    network = Linear(classes, 1e4 if shift is APGD_CE else 1)
    labels, radii = network.radii(norm)
    several = {"apgd_ce": {"restarts": 3}, "apgd_dlr": {}, "apgd_t": {"targets": 3}}[shift.name]
    settings = {**shift.settings, "norm": norm, "steps": 8, **several}
    samples, radius = Samples(network.pixels, labels, ("a",)), radii.item()
    ladder = (f"{radius * 0.98:.9f}", f"{radius * 1.02:.9f}")
    batches = shift.apply(samples, ladder, DRAW, attackable(network), **settings)
    assert fooled(network, batches, labels).flatten().tolist() == [False, True]


def test_checkpoints_are_those_of_the_paper() -> None:
    """100: distances 22, 19, 16, 13, 10, 7, 6, 6. 20: ceilings of 4.4, 8.2, 11.4, 14, 16, 17.4, 18.6, 19.8."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [5, 9, 12, 14, 16, 18, 19, 20]
    assert checkpoints(1) == [1]


def test_a_step_is_halved_on_either_condition() -> None:
    """Six samples 16 steps after the last checkpoint; of them 12, .75 of the steps, is the most that is too few."""
    rises = torch.tensor([12, 13, 13, 13, 0, 12])
    was_halved = torch.tensor([True, True, False, False, False, True])
    improved = torch.tensor([True, False, False, True, True, False])
    four = torch.arange(6.0)[:, None, None, None]
    before = Walkers(
        rows=torch.arange(6),
        here=four,
        before=four + 10,
        value=torch.arange(6.0),
        slope=four + 20,
        stride=torch.ones_like(four),
        top=four + 30,
        top_value=torch.arange(6.0) + 1,
        top_slope=four + 40,
        rises=rises,
        checked_value=torch.arange(6.0) + torch.where(improved, 0.5, 1.0),
        halved=was_halved,
    )
    after = checked(before, 16)
    assert after.halved.tolist() == [True, False, True, False, True, True]
    assert after.stride.flatten().tolist() == [0.5, 1, 0.5, 1, 0.5, 0.5]
    assert after.here.flatten().tolist() == [30, 1, 32, 3, 34, 35]
    assert after.slope.flatten().tolist() == [40, 21, 42, 23, 44, 45]
    assert torch.equal(after.before, before.before)
    assert torch.equal(after.checked_value, before.top_value)
    assert after.rises.tolist() == [0] * 6


def paper_path(
    value: Callable[[float], float], slope: Callable[[float], float], clean: float, start: float, eps: float, steps: int
) -> list[float]:
    """Algorithm 1 for a single pixel, written down from the paper: every point that is looked at, in order."""

    def project(x: float) -> float:
        return min(max(x, clean - eps, 0), clean + eps, 1)

    shares = [0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    marks = [math.ceil(round(share * steps, 9)) for share in shares[:-1]]
    path, etas, tops = [start], {0: 2 * eps}, {0: value(start)}
    here, before, eta = start, start, 2 * eps
    for k in range(1, steps + 1):
        z = project(here + eta * math.copysign(1, slope(here)))
        alpha = 0.75 if k > 1 else 1
        before, here = here, project(here + alpha * (z - here) + (1 - alpha) * (here - before))
        path.append(here)
        if k in marks:
            last = marks[marks.index(k) - 1]
            best = max(path, key=value)
            etas[k], tops[k] = eta, value(best)
            risen = sum(value(b) > value(a) for a, b in pairwise(path[last : k + 1]))
            idle = last > 0 and etas[k] == etas[last] and tops[k] == tops[last]
            if risen <= 0.75 * (k - last) or idle:
                eta, here = eta / 2, best
    return path


class Recorder:
    """A network as an attack sees it, called stochastic so that nobody is dropped, which keeps what it was shown."""

    deterministic = False

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self.shown: list[Tensor] = []

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.shown.append(pixels.detach().clone())
        return self.network(pixels)


def test_a_pixel_walks_as_in_the_paper() -> None:
    """Sixteen samples of one pixel: peaks of the loss inside the ball, outside it and outside the box, 100 steps."""
    peaks = torch.tensor(
        [
            0.312,
            0.3917,
            0.4123,
            0.4471,
            0.5,
            0.5219,
            0.5573,
            0.6131,
            0.6489,
            0.9,
            0.103,
            0.3513,
            0.4537,
            0.5571,
            0.6529,
            0.2117,
        ]
    )
    clean = torch.tensor([0.4, 0.4, 0.4, 0.5, 0.52, 0.5, 0.5, 0.6, 0.6, 0.97, 0.07, 0.4, 0.4, 0.5, 0.6, 0.25])
    eps = 0.1

    def tent(pixels: Tensor) -> Tensor:
        score = -1 - (pixels[:, 0, 0, 0] - peaks).abs() - 3 * (pixels[:, 0, 0, 0] - peaks) ** 2
        return torch.stack([torch.zeros_like(score), score], 1)

    samples = Samples(clean[:, None, None, None], torch.zeros(16, dtype=torch.long), tuple(map(str, range(16))))
    begun, target = border(samples, eps, DRAW, "linf"), Recorder(tent)
    ascend(samples, begun, eps, BALLS["linf"], 100, lambda rows: log_odds, Look(target, DRAW))
    shown = torch.stack(target.shown)[:, :, 0, 0, 0].T
    assert shown.shape == (16, 101)
    for path, peak, origin, start in zip(shown, peaks.tolist(), clean.tolist(), begun.flatten().tolist(), strict=True):
        expected = paper_path(
            lambda x, peak=peak: -abs(x - peak) - 3 * (x - peak) ** 2,  # type: ignore[misc]
            lambda x, peak=peak: peak - x,  # type: ignore[misc]
            origin,
            start,
            eps,
            100,
        )
        assert path.tolist() == pytest.approx(expected, abs=2e-6)


def test_a_walk_that_no_longer_tops_itself_starts_again_from_its_top() -> None:
    """A loss that falls by 100 at the first step, then rises by 1 a step, and whose slope always points upwards.

    At step 22, 21 of 22 steps have risen and condition 2 is not asked. At step 41 all have, but the top is still the
    start, 0.4: from there the step is halved to 0.1, and leads to 0.4 + 0.75 * 0.1 + 0.25 * (0.4 - 0.6).
    """
    values = iter([0.0, *range(-100, 0)])
    target = Recorder(lambda pixels: torch.cat([0 * pixels[:, 0, 0], next(values) + 1e-3 * pixels[:, 0, 0]], 1) - 50)
    samples = Samples(torch.full((8, 1, 1, 1), 0.5), torch.zeros(8, dtype=torch.long), tuple(map(str, range(8))))
    ascend(samples, samples.pixels - 0.1, 0.1, BALLS["linf"], 100, lambda rows: log_odds, Look(target, DRAW))
    path = torch.stack(target.shown)[:43, 0, 0, 0, 0].tolist()
    assert path == pytest.approx([0.4, *[0.6] * 41, 0.425], abs=1e-6)


def test_a_point_that_fools_is_kept_whatever_its_loss() -> None:
    """Three classes just below the label weigh more in the log-odds, 1.09, than a single one just above it, 0.01."""
    logits = iter([[1, 0.99, 0.99, 0.99], [1, 1.01, -9, -9]])

    class Scripted:
        deterministic = True

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            return torch.tensor(next(logits)) + 0 * pixels[:, :, 0, 0]

    samples = Samples(torch.full((8, 1, 1, 1), 0.5), torch.zeros(8, dtype=torch.long), tuple(map(str, range(8))))
    found = ascend(samples, samples.pixels, 0.1, BALLS["linf"], 9, lambda rows: log_odds, Look(Scripted(), DRAW))
    assert found.fooled.all()
    assert found.loss == pytest.approx([0.01] * 8, abs=1e-3)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.3)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_walks_are_those_of_torchattacks(
    norm: str, eps: float, loss: str, samples: Samples, network: nn.Module
) -> None:
    """From the same starts, 100 steps without dropping, each sample's highest loss is the same, and so is its image."""
    attack = torchattacks.APGD(network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=100, loss=loss)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, _, heights, _ = attack.attack_single_run(samples.pixels, samples.labels)
        torch.manual_seed(0)
        noise = 2 * torch.rand(samples.pixels.shape) - 1 if norm == "linf" else torch.randn(samples.pixels.shape)
    noise = noise / noise.flatten(1).norm(p=math.inf if norm == "linf" else 2, dim=1)[:, None, None, None]
    begun, target = (samples.pixels + eps * noise).clamp(0, 1), Recorder(network)
    objective: Objective = {"ce": log_odds, "dlr": dlr}[loss]
    ascend(samples, begun, eps, BALLS[norm], 100, lambda rows: objective, Look(target, DRAW))
    shown = torch.stack(target.shown)
    ours: Objective = {"ce": lambda z, y: nn.functional.cross_entropy(z, y, reduction="none"), "dlr": dlr}[loss]
    values = torch.stack([ours(network(pixels), samples.labels) for pixels in shown])
    highest, place = values.max(0)
    assert (highest - heights).abs().max() < 1e-3
    assert (shown[place, torch.arange(37)] - images).abs().max() < 1e-3


@pytest.fixture(scope="module")
def adv_lib() -> Iterator[Any]:
    """adv-lib's APGD; its package imports visdom, which it needs for pictures alone, and parts of the old distutils."""
    pytest.importorskip("adv_lib")
    missing = "visdom" not in sys.modules
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from adv_lib.attacks import auto_pgd
    yield auto_pgd
    if missing:
        del sys.modules["visdom"]


@pytest.mark.parametrize(("shift", "norm", "eps"), [(APGD_CE, "linf", "0.02"), (APGD_DLR, "l2", "0.1")])
def test_no_other_gradient_attack_fools_more(
    shift: Shift, norm: str, eps: str, samples: Samples, network: nn.Module, target: Any, adv_lib: Any
) -> None:
    """PGD with 20 steps, APGD of torchattacks and of adv-lib with 100; all from one random start."""
    size, loss = float(eps), shift.name.removeprefix("apgd_")
    (ours,) = shift.apply(samples, (eps,), DRAW, target, **{**shift.settings, "norm": norm})
    (pgd,) = PGD.apply(samples, (eps,), DRAW, target, **{**PGD.settings, "norm": norm})
    attack = torchattacks.APGD(network, norm=norm.title(), eps=size, steps=100, loss=loss)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        order = math.inf if norm == "linf" else 2
        others = [
            attack(samples.pixels, samples.labels),
            adv_lib.apgd(network, samples.pixels, samples.labels, size, order, loss_function=loss),
        ]
    counts = fooled(network, [ours, pgd, *others], samples.labels).sum(1)
    assert 4 < counts[0] < 37
    assert counts[0] >= counts.max()


def test_targeted_attacks_of_others_do_not_fool_more(
    samples: Samples, network: nn.Module, target: Any, adv_lib: Any
) -> None:
    (ours,) = APGD_T.apply(samples, ("0.02",), DRAW, target, **{**APGD_T.settings, "steps": 20})
    attack = torchattacks.APGDT(network, eps=0.02, steps=20, n_classes=5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        others = [
            attack(samples.pixels, samples.labels),
            adv_lib.apgd_targeted(network, samples.pixels, samples.labels, 0.02, math.inf, n_iter=20),
        ]
    counts = fooled(network, [ours, *others], samples.labels).sum(1)
    assert 4 < counts[0] < 37
    assert counts[0] >= counts.max()


class Rescaled(nn.Module):
    """Another network's logits, scaled and shifted: the same decisions."""

    def __init__(self, network: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels)
        return self.scale * logits + self.shift


@pytest.mark.parametrize("shift", [APGD_DLR, APGD_T], ids=lambda shift: shift.name)
def test_the_scale_of_the_logits_hides_nothing(
    shift: Shift, samples: Samples, network: nn.Module, attackable: Any
) -> None:
    """The ratio is the same for every scale and shift, up to rounding: so is what falls."""
    settings = {**shift.settings, "steps": 6}
    falls = [
        fooled(network, shift.apply(samples, ("0.02",), DRAW, attackable(model), **settings), samples.labels)
        for model in (network, Rescaled(network, 1e4, 0), Rescaled(network, 1, 10))
    ]
    assert 4 < falls[0].sum() < 37
    assert torch.equal(falls[1], falls[0])
    assert torch.equal(falls[2], falls[0])


def test_cross_entropy_does_not_saturate(samples: Samples, network: nn.Module, attackable: Any) -> None:
    """Scaled logits fall as the others do, up to the few that the sharper or softer mixture of classes decides, while
    the cross-entropy itself, as torchattacks climbs it, is 0 in float32 and has no gradient."""
    sharp = Rescaled(network, 1e4, 0)
    falls = [
        fooled(network, run("apgd_ce linf", samples, attackable(model), ("0.05",)), samples.labels).sum()
        for model in (network, sharp, Rescaled(network, 1, 10))
    ]
    theirs = torchattacks.APGD(sharp, eps=0.05, steps=9, n_restarts=2)
    with torch.random.fork_rng():
        stuck = fooled(network, [theirs(samples.pixels, samples.labels)], samples.labels).sum()
    assert falls[0] == falls[2]
    assert abs(falls[1] - falls[0]) <= 2
    assert falls[1] > stuck + 4


@every_attack
def test_perturbations_stay_in_the_ball_and_in_the_box(name: str, samples: Samples, target: Any) -> None:
    for text, pixels in zip(ATTACKS[name][2], run(name, samples, target), strict=True):
        delta = (pixels.double() - samples.pixels.double()).flatten(1)
        eps = severity_value(text)
        if name.endswith("linf"):
            assert delta.abs().max() <= eps + 2**-23
        else:
            assert delta.norm(dim=1).max() <= eps * (1 + 1e-6)
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@every_attack
def test_ladders_are_nested_and_mistakes_stay(name: str, samples: Samples, target: Any) -> None:
    before = samples.pixels.clone()
    batches = run(name, samples, target)
    verdicts = fooled(target.network, batches, samples.labels)
    assert verdicts[-1].sum() > verdicts[0].sum() >= 4
    for (small, large), (first, then) in zip(pairwise(verdicts), pairwise(batches), strict=True):
        assert large[small].all()
        assert torch.equal(then[small], first[small])
    assert all(torch.equal(pixels[:4], samples.pixels[:4]) for pixels in batches)
    assert torch.equal(samples.pixels, before)
    assert torch.equal(run(name, samples, target, ("0",))[0], samples.pixels)


@every_attack
def test_batches_and_order_change_nothing(name: str, samples: Samples, target: Any) -> None:
    ladder = ATTACKS[name][2][1:2]
    whole = run(name, samples, target, ladder)
    for size, rows in ((1, range(3, 6)), (19, range(37))):
        pieces = [run(name, samples.rows(rows[i : i + size]), target, ladder) for i in range(0, len(rows), size)]
        for all_, parts in zip(whole, zip(*pieces, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), all_[list(rows)])
    for all_, reversed_ in zip(whole, run(name, samples.rows(range(36, -1, -1)), target, ladder), strict=True):
        assert torch.equal(reversed_.flip(0), all_)


@every_attack
def test_global_state_neither_matters_nor_moves(name: str, samples: Samples, target: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        (first,) = run(name, samples, target, ATTACKS[name][2][1:2])
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(run(name, samples, target, ATTACKS[name][2][1:2])[0], first)


@every_attack
def test_fooled_samples_leave_and_others_walk_on(name: str, samples: Samples, target: Any) -> None:
    """A sample is shown once more where it was fooled, and never after."""
    (pixels,) = run(name, samples, target, ATTACKS[name][2][-1:])
    verdict = fooled(target.network, [pixels], samples.labels)[0]
    counts = [sum(i in ids for ids in target.shown) for i in samples.ids]
    longest = max(counts)
    assert longest > 1
    assert all((count == longest) != fell for count, fell in zip(counts, verdict.tolist(), strict=True))
    assert counts[:4] == [1] * 4


def test_starts_lie_on_the_border_and_depend_on_no_eps() -> None:
    ids = tuple(map(str, range(23)))
    samples = Samples(torch.full((23, 3, 5, 7), 0.5), torch.zeros(23, dtype=torch.long), ids)
    for norm, order in (("linf", math.inf), ("l2", 2)):
        small, large = (border(samples, eps, DRAW, norm).double() - 0.5 for eps in (0.1, 0.2))
        assert large.flatten(1).norm(p=order, dim=1) == pytest.approx([0.2] * 23, abs=1e-6)
        assert torch.allclose(2 * small, large, atol=1e-6)
        assert not torch.allclose(large, border(samples, 0.2, DRAW.at(1), norm).double() - 0.5, atol=1e-2)


def test_aims_are_the_likeliest_other_classes_of_the_clean_image(samples: Samples, target: Any) -> None:
    logits = torch.tensor([[3.0, 9, 1, 5], [4, 2, 8, 6]])
    assert rivals(logits, torch.tensor([1, 0]), 9).tolist() == [[3, 0, 2], [2, 3, 1]]
    assert rivals(logits, torch.tensor([1, 0]), 2).tolist() == [[3, 0], [2, 3]]
    aimed = []

    def towards(aims: Tensor) -> Objective:
        aimed.append(aims)
        return difference_towards(aims)

    hard = samples.rows(range(4, 37))
    (search,) = apgd_targeted_searches("linf", 1, 1, 9, towards)
    search(hard, 1e-6, DRAW, Look(target, DRAW))
    ranks = target.network(hard.pixels).argsort(1, descending=True)
    assert len(aimed) == 4 * 2
    for rank in range(4):
        assert torch.equal(aimed[2 * rank], ranks[:, rank + 1])


def test_restarts_and_targets_draw_their_own_starts(samples: Samples, target: Any) -> None:
    """At an eps at which nothing falls, the first point of each walk differs from all the others'."""
    seen: list[Tensor] = []

    class Shown:
        deterministic = True

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            seen.append(pixels.detach().clone())
            return target(pixels, ids, draw)

    hard = samples.rows(range(4, 37))
    APGD_CE.apply(hard, ("1e-5",), DRAW, Shown(), **{**APGD_CE.settings, "steps": 1, "restarts": 3})
    APGD_T.apply(hard, ("1e-5",), DRAW, Shown(), **{**APGD_T.settings, "steps": 1, "restarts": 2, "targets": 2})
    ce, targeted = seen[1:7:2], seen[9::2]
    starts = [*ce, *targeted]
    assert [len(ce), len(targeted)] == [3, 4]
    for i, one in enumerate(starts):
        assert not any(torch.equal(one, other) for other in starts[:i])


class Noisy:
    """Three classes; the second wins where the mean pixel, with noise of a tenth, exceeds a half."""

    deterministic = False

    def __init__(self) -> None:
        self.draws: list[Draw] = []

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.draws.append(draw)
        score = 6 * (pixels.mean((1, 2, 3)) - 0.5) + 0.1 * draw.normal(ids, ())
        return torch.stack([torch.zeros_like(score), score, -3 + 0 * score], 1)


@pytest.mark.parametrize("name", ["apgd_ce linf", "apgd_ce l2", "apgd_dlr linf"])
def test_stochastic_models_are_attacked_in_expectation(name: str) -> None:
    """Every look is the next `passes` streams; every eps begins from scratch; what is kept is brighter than half."""
    ids = tuple(f"image-{i}" for i in range(16))
    samples = Samples(torch.full((16, 1, 2, 3), 0.4), torch.zeros(16, dtype=torch.long), ids)
    ladder, victim = ("0.05", "0.6"), Noisy()
    both = run(name, samples, victim, ladder, passes=5, steps=4, restarts=2)
    streams = [DRAW.named("model").at(i) for i in range(2 * (4 + 1) * 5)]
    assert victim.draws == streams * 2
    (alone,) = run(name, samples, Noisy(), ladder[1:], passes=5, steps=4, restarts=2)
    assert torch.equal(both[1], alone)
    assert (alone.mean((1, 2, 3)) > 0.55).all()


def test_the_point_with_the_highest_loss_is_kept() -> None:
    """A stochastic model's mean loss, estimated at each look, is what ranks the points: here it is noise alone."""

    class Dice:
        deterministic = False

        def __init__(self) -> None:
            self.seen: list[tuple[Tensor, Tensor]] = []

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            score = draw.normal(ids, ()) + 1e-6 * pixels.mean((1, 2, 3))
            self.seen.append((pixels.detach().clone(), score.detach()))
            return torch.stack([torch.zeros_like(score), score, score - 1], 1)

    ids = tuple(f"image-{i}" for i in range(16))
    samples = Samples(torch.full((16, 1, 2, 3), 0.4), torch.zeros(16, dtype=torch.long), ids)
    for name, looks in (("apgd_ce linf", slice(0, None)), ("apgd_dlr linf", slice(0, None))):
        victim = Dice()
        (kept,) = run(name, samples, victim, ("0.1",), passes=1, steps=6)
        scores = torch.stack([score for _, score in victim.seen[looks]])
        images = torch.stack([pixels for pixels, _ in victim.seen[looks]])
        assert torch.equal(kept, images[scores.argmax(0), torch.arange(16)])


def test_chance_errors_are_not_attacks() -> None:
    """A model blind to its pixels errs in 5 % of passes; over 50 fresh ones for 101 samples 5 deviations are 1.5 %."""
    ids = tuple(f"image-{i}" for i in range(101))
    labels = torch.arange(101) % 5
    classes = dict(zip(ids, labels.tolist(), strict=True))

    class Careless:
        deterministic = False

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            shown = torch.tensor([classes[i] for i in ids]) + (draw.uniform(ids, ()) < 0.05)
            return 4 * nn.functional.one_hot(shown % 5, 5).float() + 0 * pixels.sum((1, 2, 3))[:, None]

    samples = Samples(torch.rand(101, 1, 2, 3, generator=torch.Generator().manual_seed(1)), labels, ids)
    (pixels,) = run("apgd_t l2", samples, Careless(), ("0.1",), passes=2)
    judge = Draw(0, "attack", "judge")
    errors = [Careless()(pixels, ids, judge.at(i)).argmax(1) != labels for i in range(50)]
    assert abs(torch.stack(errors).double().mean().item() - 0.05) < 5 * (0.05 * 0.95 / 5050) ** 0.5


def test_mistakes_are_named(samples: Samples, target: Any, attackable: Any) -> None:
    with pytest.raises(ValueError, match="unknown norm 'l1' for APGD; choose from linf, l2"):
        run("apgd_ce linf", samples, target, norm="l1")
    with pytest.raises(ValueError, match="steps and restarts must be at least 1, got steps=0, restarts=1"):
        run("apgd_dlr linf", samples, target, steps=0)
    with pytest.raises(ValueError, match="targets must be at least 1, got steps=5, restarts=1, targets=0"):
        run("apgd_t l2", samples, target, targets=0)
    for classes, name, text in ((2, "apgd_dlr linf", "needs 3 classes"), (3, "apgd_t l2", "needs 4 classes")):
        network = Linear(classes, 1)
        given = Samples(network.pixels, network(network.pixels).argmax(1), ("a",))
        with pytest.raises(ValueError, match=f"{text}, the model has {classes}; attack it with apgd_ce"):
            run(name, given, attackable(network))
