"""Gradient attacks: known radii, promises that hold for every one, equality with torchattacks, stochastic models."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attnbench.attacks.adversarial.ascent import Keep, Walk, climb
from attnbench.attacks.adversarial.ball import BALLS, box
from attnbench.attacks.adversarial.fgsm import FGSM
from attnbench.attacks.adversarial.look import SMALLEST_BATCH, Look
from attnbench.attacks.adversarial.pgd import PGD
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift, severity_value

DRAW = Draw(0, "attack", "attack")
LINF, L2 = ("0.005", "0.01", "0.02", "0.05", "0.2"), ("0.02", "0.05", "0.1", "0.2", "1")
ATTACKS: dict[str, tuple[Shift, dict[str, Any], str, tuple[str, ...]]] = {
    "fgsm": (FGSM, {}, "linf", LINF),
    "pgd linf": (PGD, {}, "linf", LINF),
    "pgd linf, three restarts": (PGD, {"restarts": 3, "steps": 3, "relative_step": 0.5}, "linf", LINF),
    "pgd l2": (PGD, {"norm": "l2"}, "l2", L2),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def run(
    name: str, samples: Samples, target: Any, severities: Sequence[str] = (), draw: Draw = DRAW
) -> tuple[Tensor, ...]:
    shift, given, _, ladder = ATTACKS[name]
    return shift.apply(samples, severities or ladder, draw, target, **{**shift.settings, **given})


def fooled(network: nn.Module, batches: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return `[rung, sample]`."""
    return torch.stack([network(pixels).argmax(1) != labels for pixels in batches])


class Halfspace(nn.Module):
    """Two classes: class 1 where w (x - 1/2) + b > 0, so a point's distance to the border is known in every norm."""

    def __init__(self, weight: Tensor, offset: float) -> None:
        super().__init__()
        self.weight, self.offset = weight, offset

    def forward(self, pixels: Tensor) -> Tensor:
        score = (pixels - 0.5).flatten(1) @ self.weight + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize(("name", "slack"), [("fgsm", 0.01), ("pgd linf", 0.01), ("pgd l2", 0.03)])
def test_a_halfspace_falls_at_its_distance(name: str, slack: float, attackable: Any) -> None:
    """L-inf distance |score| / |w|_1, L2 distance |score| / |w|_2; the pixels stay away from 0 and 1.

    An L2 walk may start at a right angle to w; an eighth of the radius a step turns it to within 10 degrees in 20 steps
    (tan(angle / 2) falls by exp(-1/8) a step), so it reaches cos(10 degrees) > 1 / 1.03 of the way.
    """
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(105, generator=generator)
    network = Halfspace(weight, offset=0.3)
    pixels = 0.4 + 0.2 * torch.rand(3, 3, 5, 7, generator=generator)
    score = (pixels.double() - 0.5).flatten(1) @ weight.double() + 0.3
    samples = Samples(pixels, (score > 0).long(), tuple(map(str, range(3))))
    radii = score.abs() / weight.double().norm(p=1 if ATTACKS[name][2] == "linf" else 2)
    for row, radius in enumerate(radii.tolist()):
        inside, outside = f"{radius * (1 - slack):.9f}", f"{radius * (1 + slack):.9f}"
        batches = run(name, samples.rows([row]), attackable(network), (inside, outside))
        assert fooled(network, batches, samples.labels[[row]]).flatten().tolist() == [False, True]


def test_the_first_fooling_step_is_returned(attackable: Any) -> None:
    """From 0.3 in steps of 0.05 towards the border at 0.47: the fourth step, 0.5, is the first beyond it."""
    network = Halfspace(torch.ones(1), offset=0.03)
    samples = Samples(torch.full((1, 1, 1, 1), 0.3), torch.zeros(1, dtype=torch.long), ("a",))
    walk = Walk(BALLS["linf"], steps=8, relative_step=0.125, random_start=False)
    keeps: tuple[Keep, ...] = ("first_fooling", "last", "highest")
    look = Look(attackable(network), DRAW)
    ends = {keep: climb(samples, samples.pixels, 0.4, walk, look, keep).pixels.item() for keep in keeps}
    assert ends == pytest.approx({"first_fooling": 0.5, "last": 0.7, "highest": 0.7})


@every_attack
def test_perturbations_stay_in_the_ball_and_in_the_box(name: str, samples: Samples, target: Any) -> None:
    for text, pixels in zip(ATTACKS[name][3], run(name, samples, target), strict=True):
        delta = (pixels.double() - samples.pixels.double()).flatten(1)
        eps = severity_value(text)
        if ATTACKS[name][2] == "linf":
            assert delta.abs().max() <= eps + 2**-23
        else:
            assert delta.norm(dim=1).max() <= eps * (1 + 1e-6)
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@every_attack
def test_what_is_fooled_stays_fooled_by_the_same_image(name: str, samples: Samples, target: Any) -> None:
    batches = run(name, samples, target)
    verdicts = fooled(target.network, batches, samples.labels)
    assert verdicts[-1].sum() > verdicts[0].sum() >= 4
    for i in range(len(batches) - 1):
        assert verdicts[i + 1][verdicts[i]].all()
        assert torch.equal(batches[i + 1][verdicts[i]], batches[i][verdicts[i]])


@every_attack
def test_a_clean_mistake_is_returned_unchanged(name: str, samples: Samples, target: Any) -> None:
    for pixels in run(name, samples, target):
        assert torch.equal(pixels[:4], samples.pixels[:4])


@every_attack
def test_fooled_samples_are_never_shown_again(name: str, samples: Samples, target: Any) -> None:
    run(name, samples.rows(range(4)), target)
    assert len(target.shown) == 1


@every_attack
def test_batches_and_order_change_nothing(name: str, samples: Samples, target: Any) -> None:
    ladder = ATTACKS[name][3][1:4:2]
    whole = run(name, samples, target, ladder)
    for size, rows in ((1, range(3, 11)), (7, range(37)), (32, range(37))):
        pieces = [run(name, samples.rows(rows[i : i + size]), target, ladder) for i in range(0, len(rows), size)]
        for all_, parts in zip(whole, zip(*pieces, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), all_[list(rows)])
    for all_, reversed_ in zip(whole, run(name, samples.rows(range(36, -1, -1)), target, ladder), strict=True):
        assert torch.equal(reversed_.flip(0), all_)


@every_attack
def test_small_batches_are_filled_up(name: str, samples: Samples, target: Any) -> None:
    run(name, samples.rows([5, 6]), target)
    assert {len(ids) for ids in target.shown} == {SMALLEST_BATCH}
    assert {i for ids in target.shown for i in ids} == {"image-5", "image-6"}


@every_attack
def test_global_state_neither_matters_nor_moves(name: str, samples: Samples, target: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(name, samples, target)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(map(torch.equal, run(name, samples, target), first))


@every_attack
def test_inputs_are_left_alone(name: str, samples: Samples, target: Any) -> None:
    before = samples.pixels.clone()
    batches = run(name, samples, target)
    assert torch.equal(samples.pixels, before)
    assert not any(pixels.requires_grad for pixels in batches)


def test_the_noise_of_the_start_depends_on_no_eps(samples: Samples) -> None:
    for ball in BALLS.values():
        noise = ball.random_start(DRAW, samples.ids, (3, 5, 7))
        assert torch.equal(noise, ball.random_start(DRAW, samples.ids, (3, 5, 7)))
        assert not torch.equal(noise, ball.random_start(DRAW.at(1), samples.ids, (3, 5, 7)))
    assert BALLS["linf"].random_start(DRAW, samples.ids, (3, 5, 7)).abs().max() <= 1


def test_l2_starts_are_uniform_by_volume() -> None:
    """A share r^n of an n-ball's volume lies within radius r: r^n is uniform, here over 4000 points of 3 dimensions."""
    lengths = BALLS["l2"].random_start(DRAW, tuple(map(str, range(4000))), (3, 1, 1)).flatten(1).double().norm(dim=1)
    assert lengths.max() <= 1
    assert abs((lengths**3).mean().item() - 1 / 2) < 5 * (1 / 12 / 4000) ** 0.5


@pytest.mark.parametrize("eps", [0.02, 8 / 255, 0.1])
def test_fgsm_equals_torchattacks_to_the_last_bit(eps: float, samples: Samples, target: Any) -> None:
    walk = Walk(BALLS["linf"]._replace(project=box), 1, 1.0, random_start=False)
    ours = climb(samples, samples.pixels, eps, walk, Look(target, DRAW), "last").pixels
    assert torch.equal(ours, torchattacks.FGSM(target.network, eps=eps)(samples.pixels, samples.labels))


@pytest.mark.parametrize("eps", [0.02, 8 / 255, 0.1])
def test_pgd_equals_torchattacks_to_the_last_bit(eps: float, samples: Samples, target: Any) -> None:
    attack = torchattacks.PGD(target.network, eps=eps, alpha=0.125 * eps, steps=20)
    torch.manual_seed(3)
    theirs = attack(samples.pixels, samples.labels)
    torch.manual_seed(3)
    begun = (samples.pixels + torch.empty_like(samples.pixels).uniform_(-eps, eps)).clamp(0, 1)
    ours = climb(samples, begun, eps, Walk(BALLS["linf"], 20, 0.125), Look(target, DRAW), "last").pixels
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("eps", [0.1, 0.3, 1.0])
def test_pgd_in_l2_equals_torchattacks(eps: float, samples: Samples, target: Any) -> None:
    """With its constant of division, which all but stops confident samples, set to nothing."""
    attack = torchattacks.PGDL2(target.network, eps=eps, alpha=0.125 * eps, steps=20, eps_for_division=1e-30)
    torch.manual_seed(3)
    theirs = attack(samples.pixels, samples.labels)
    torch.manual_seed(3)
    noise = torch.empty_like(samples.pixels).normal_()
    lengths = noise.flatten(1).norm(dim=1)[:, None, None, None]
    begun = (samples.pixels + noise * torch.zeros_like(lengths).uniform_(0, 1) / lengths * eps).clamp(0, 1)
    ours = climb(samples, begun, eps, Walk(BALLS["l2"], 20, 0.125), Look(target, DRAW), "last").pixels
    assert (ours - theirs).abs().max() < 1e-3


def test_dropping_changes_no_verdict(samples: Samples, target: Any) -> None:
    """A sample is fooled by the dropping search just where some step of the full walk fools."""
    walk, eps = Walk(BALLS["linf"], 20, 0.125), 0.02
    look = Look(target, DRAW)
    dropped = climb(samples, samples.pixels, eps, walk, look, "first_fooling")
    ever = torch.zeros(37, dtype=torch.bool)
    for steps in range(1, 21):
        end = climb(samples, samples.pixels, eps, walk._replace(steps=steps), look, "last")
        ever |= end.fooled
    clean = target.network(samples.pixels).argmax(1) != samples.labels
    assert torch.equal(dropped.fooled, ever | clean)
    assert 4 < dropped.fooled.sum() < 37


class Careless:
    """Always right but for one pass in twenty, and blind to the pixels."""

    deterministic = False

    def __init__(self, labels: dict[str, int], error: float = 0.05) -> None:
        self.labels, self.error = labels, error
        self.draws: list[Draw] = []

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        self.draws.append(draw)
        wrong = draw.uniform(ids, ()) < self.error
        classes = torch.tensor([self.labels[i] for i in ids])
        shown = torch.where(wrong, (classes + 1) % 5, classes)
        return 4 * torch.nn.functional.one_hot(shown, 5).float() + 0 * pixels.sum((1, 2, 3))[:, None]


@pytest.mark.parametrize("name", ["fgsm", "pgd linf", "pgd l2"])
def test_chance_errors_are_not_attacks(name: str) -> None:
    """On 50 fresh passes the error of 101 samples stays 5 %: five standard deviations of 5050 passes are 1.5 points.

    Had any of 21 passes counted, 66 % would have read as fooled.
    """
    ids = tuple(f"image-{i}" for i in range(101))
    victim = Careless({name: i % 5 for i, name in enumerate(ids)})
    labels = torch.tensor([victim.labels[i] for i in ids])
    samples = Samples(torch.rand(101, 1, 2, 3, generator=torch.Generator().manual_seed(1)), labels, ids)
    (pixels,) = run(name, samples, victim, ("0.1",))
    judge = Draw(0, "attack", "judge")
    errors = [victim(pixels, ids, judge.at(i)).argmax(1) != labels for i in range(50)]
    assert abs(torch.stack(errors).double().mean().item() - 0.05) < 5 * (0.05 * 0.95 / 5050) ** 0.5


def test_a_stochastic_model_meets_fresh_noise_at_every_pass() -> None:
    ids = tuple(f"image-{i}" for i in range(11))
    victim = Careless(dict.fromkeys(ids, 0))
    samples = Samples(torch.rand(11, 1, 2, 3), torch.zeros(11, dtype=torch.long), ids)
    PGD.apply(samples, ("0.1", "0.2"), DRAW, victim, norm="linf", steps=3, relative_step=0.5, restarts=2, passes=5)
    rung = [DRAW.named("model").at(i) for i in range(2 * (3 + 1) * 5)]
    assert victim.draws == rung * 2


class Noisy(Careless):
    """A halfspace with a noisy offset."""

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        logits: Tensor = Halfspace(torch.ones(6), 0.0)(pixels)
        return logits + 0.1 * draw.normal(ids, (2,))


def test_a_stochastic_model_is_attacked_at_every_eps_from_scratch() -> None:
    ids = tuple(f"image-{i}" for i in range(11))
    samples = Samples(torch.full((11, 1, 2, 3), 0.4), torch.zeros(11, dtype=torch.long), ids)
    ladder = run("pgd linf", samples, Noisy({}), ("0.01", "0.05", "0.3"))
    alone = run("pgd linf", samples, Noisy({}), ("0.3",))
    assert torch.equal(ladder[2], alone[0])
    assert (alone[0].mean((1, 2, 3)) > 0.5).all()
    assert not torch.equal(ladder[1], ladder[2])


def test_mistakes_are_named(samples: Samples, target: Any, attackable: Any) -> None:
    with pytest.raises(ValueError, match="rise"):
        run("fgsm", samples, target, ("0.2", "0.1"))
    with pytest.raises(ValueError, match="needs the model"):
        run("fgsm", samples, None)
    with pytest.raises(ValueError, match="at least one sample"):
        run("fgsm", samples.rows([]), target)
    with pytest.raises(ValueError, match="unknown norm 'l1' for pgd; choose from linf, l2"):
        PGD.apply(samples, ("0.1",), DRAW, target, **{**PGD.settings, "norm": "l1"})
    with pytest.raises(ValueError, match="steps=0"):
        PGD.apply(samples, ("0.1",), DRAW, target, **{**PGD.settings, "steps": 0})
    with pytest.raises(ArithmeticError, match="not finite"):
        run("fgsm", samples, attackable(nn.Sequential(nn.Flatten(), nn.Linear(105, 5), nn.Threshold(9, torch.nan))))


@every_attack
def test_eps_0_is_the_clean_image(name: str, samples: Samples, target: Any) -> None:
    assert torch.equal(run(name, samples, target, ("0", "0.01"))[0], samples.pixels)


@pytest.mark.parametrize("side", [8, 64, 224])
def test_images_whose_pixels_are_alike_stay_in_the_ball(side: int) -> None:
    """There the rounding of all pixels adds up: 64 x 64 x 3 pixels at .7 used to end 1.2e-5 beyond eps .25."""
    ball = BALLS["l2"]
    for level in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        clean = torch.full((2, 3, side, side), level)
        far = torch.stack([clean[0] + 1, clean[1] - 1])
        for eps in (0.01, 0.25, 0.5, 1.0):
            length = (ball.project(far, clean, eps).double() - clean.double()).flatten(1).norm(dim=1)
            assert length.max() <= eps
            assert level in (0.0, 1.0) or length.min() > 0.99 * eps
