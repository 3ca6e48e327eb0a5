"""Attacks that are shown logits alone: closed forms, the published constants, and the promises that every one keeps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from scipy.integrate import quad
from scipy.stats import beta
from torch import Tensor, nn

from attnbench.attacks.adversarial.ball import BALLS
from attnbench.attacks.adversarial.look import Look
from attnbench.attacks.adversarial.random_noise import RANDOM_NOISE
from attnbench.attacks.adversarial.spsa import SPSA, Adam, slope
from attnbench.attacks.adversarial.square import (
    SQUARE,
    bumps,
    propose_l2,
    propose_linf,
    side_l2,
    side_linf,
    squares,
    start_l2,
    start_linf,
)
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.attacks.shift import Shift, severity_value

DRAW = Draw(0, "attack", "attack")
LINF, L2 = ("0.01", "0.03", "0.2"), ("0.05", "0.2", "1")
FEW = {"steps": 3, "pairs": 11, "learning_rate": 0.05}
ATTACKS: dict[str, tuple[Shift, dict[str, Any], tuple[str, ...]]] = {
    "square linf": (SQUARE, {"queries": 20}, LINF),
    "square linf, two restarts": (SQUARE, {"queries": 7, "restarts": 2}, LINF),
    "square l2": (SQUARE, {"norm": "l2", "queries": 20}, L2),
    "spsa linf": (SPSA, FEW, LINF),
    "spsa l2": (SPSA, {**FEW, "norm": "l2", "restarts": 2}, L2),
    "random_noise linf": (RANDOM_NOISE, {"draws": 20}, LINF),
    "random_noise l2": (RANDOM_NOISE, {"draws": 20, "norm": "l2"}, L2),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def settings(name: str) -> dict[str, Any]:
    shift, given, _ = ATTACKS[name]
    return {**shift.settings, **given}


def run(
    name: str, samples: Samples, target: Any, severities: Sequence[str] = (), draw: Draw = DRAW, **given: Any
) -> tuple[Tensor, ...]:
    shift, _, ladder = ATTACKS[name]
    return shift.apply(samples, severities or ladder, draw, target, **{**settings(name), **given})


def fooled(network: nn.Module, batches: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return `[rung, sample]`."""
    return torch.stack([network(pixels).argmax(1) != labels for pixels in batches])


def images(count: int, *shape: int, seed: int = 3) -> Samples:
    """Return images of class 0 whose pixels stay away from 0 and 1."""
    pixels = 0.4 + 0.2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    return Samples(pixels, torch.zeros(count, dtype=torch.long), tuple(f"image-{i}" for i in range(count)))


class Score(nn.Module):
    """Two classes: class 1 where a score of the pixels is above 0."""

    def __init__(self, score: Any) -> None:
        super().__init__()
        self.score = score

    def forward(self, pixels: Tensor) -> Tensor:
        score = self.score((pixels - 0.5).flatten(1))
        return torch.stack([torch.zeros_like(score), score], 1)


class Answering:
    """A model given as a function of pixels, ids and draw."""

    def __init__(self, answer: Any, deterministic: bool = True) -> None:
        self.answer, self.deterministic = answer, deterministic

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        logits: Tensor = self.answer(pixels, ids, draw)
        return logits


@every_attack
def test_perturbations_stay_in_the_ball_and_in_the_box(name: str, samples: Samples, target: Any) -> None:
    for text, pixels in zip(ATTACKS[name][2], run(name, samples, target), strict=True):
        delta = (pixels.double() - samples.pixels.double()).flatten(1)
        eps = severity_value(text)
        if settings(name)["norm"] == "linf":
            assert delta.abs().max() <= eps + 2**-23
        else:
            assert delta.norm(dim=1).max() <= eps * (1 + 1e-6)
        assert pixels.dtype == torch.float32
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
def test_a_clean_mistake_and_eps_0_leave_the_image_and_ask_nothing(name: str, samples: Samples, target: Any) -> None:
    for pixels in run(name, samples.rows(range(4)), target):
        assert torch.equal(pixels, samples.pixels[:4])
    assert torch.equal(run(name, samples, target, ("0",))[0], samples.pixels)
    assert len(target.shown) == 2


@every_attack
def test_batches_and_order_change_nothing(name: str, samples: Samples, target: Any) -> None:
    ladder = ATTACKS[name][2][1:2]
    whole = run(name, samples, target, ladder)
    for size, rows in ((1, range(3, 6)), (13, range(37))):
        pieces = [run(name, samples.rows(rows[i : i + size]), target, ladder) for i in range(0, len(rows), size)]
        for all_, parts in zip(whole, zip(*pieces, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), all_[list(rows)])
    for all_, reversed_ in zip(whole, run(name, samples.rows(range(36, -1, -1)), target, ladder), strict=True):
        assert torch.equal(reversed_.flip(0), all_)


@every_attack
def test_global_state_neither_matters_nor_moves(name: str, samples: Samples, target: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    ladder = ATTACKS[name][2][1:2]
    (first,) = run(name, samples, target, ladder)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(run(name, samples, target, ladder)[0], first)
    assert not torch.equal(run(name, samples, target, ladder, DRAW._replace(noise_seed=1))[0], first)


@every_attack
def test_inputs_are_left_alone_and_no_gradient_is_asked_for(name: str, samples: Samples, target: Any) -> None:
    def logits(pixels: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not pixels.requires_grad
        result: Tensor = target.network(pixels)
        return result

    before = samples.pixels.clone()
    (pixels,) = run(name, samples, type(target)(logits), ATTACKS[name][2][1:2])
    assert torch.equal(samples.pixels, before)
    assert not pixels.requires_grad


@every_attack
def test_equal_logits_may_fool(name: str) -> None:
    """Class 1 ties with class 2, and is then named, or with class 0, and is not: the margin stays 0 throughout."""
    some = images(40, 1, 2, 3)._replace(labels=torch.ones(40, dtype=torch.long))
    seen = dict.fromkeys(some.ids, False)

    def tied(pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        up = ((pixels - 0.5).flatten(1).sum(1) > 0.1).float()
        for i, rises in zip(ids, up.tolist(), strict=True):
            seen[i] |= rises > 0
        return torch.stack([up - 1, 0 * up, -up], 1)

    some = some.rows(torch.nonzero((some.pixels - 0.5).flatten(1).sum(1) < 0.05)[:, 0])
    (pixels,) = run(name, some, Answering(tied), ("0.125",), **({"delta": 1e-9} if name.startswith("spsa") else {}))
    ends = ((pixels - 0.5).flatten(1).sum(1) > 0.1).tolist()
    assert ends == [seen[i] for i in some.ids]
    assert sum(ends) > 0


@every_attack
@pytest.mark.parametrize(("shape", "classes"), [((1, 1, 1), 2), ((3, 2, 13), 3), ((1, 17, 3), 1000)])
def test_any_image_and_any_number_of_classes(
    name: str, shape: tuple[int, int, int], classes: int, attackable: Any
) -> None:
    some = images(9, *shape)
    weight = torch.randn(math.prod(shape), classes, generator=torch.Generator().manual_seed(1))
    network = nn.Sequential(nn.Flatten(), nn.Linear(len(weight), classes)).requires_grad_(False)
    network[1].weight.copy_(weight.T)
    right = some._replace(labels=network(some.pixels).argmax(1))
    (pixels,) = run(name, right, attackable(network), ("0.3",))
    assert pixels.shape == right.pixels.shape
    assert not torch.equal(pixels, right.pixels)


@every_attack
def test_the_budget_is_kept(name: str, attackable: Any) -> None:
    """Nothing fools a model that never changes its mind, so every query is spent, after one look at the clean image."""
    stubborn = attackable(Score(lambda x: 0 * x[:, 0] - 1))
    run(name, images(16, 1, 5, 7), stubborn, ("0.1",))
    given = settings(name)
    shown = sum(len(ids) for ids in stubborn.shown) / 16 - 1
    if name.startswith("square"):
        assert shown == given["restarts"] * (1 + given["queries"])
    elif name.startswith("spsa"):
        assert shown == given["restarts"] * (given["steps"] * (1 + 2 * given["pairs"]) + 1)
    else:
        assert shown == given["draws"]


@pytest.mark.parametrize("name", ["square linf", "square l2", "random_noise linf"])
def test_a_larger_budget_goes_on_from_a_smaller_one(name: str, samples: Samples, target: Any) -> None:
    key = "draws" if name.startswith("random") else "queries"
    verdicts = [
        fooled(target.network, run(name, samples, target, **{key: count}), samples.labels) for count in (2, 10, 40)
    ]
    assert verdicts[0].sum() < verdicts[1].sum() <= verdicts[2].sum()
    assert (verdicts[0] <= verdicts[1]).all()
    assert (verdicts[1] <= verdicts[2]).all()


# Square


def test_the_schedule_is_autoattacks() -> None:
    """round(sqrt(p 32 32)) for p = .8, .4, ... by hand: 28.6, 20.2, 14.3, 10.1, 7.2, 5.06, 3.6, 2.5."""
    steps = (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 4999)
    assert [side_linf(i, 32, 32) for i in steps] == [29, 29, 20, 20, 14, 14, 10, 10, 7, 7, 5, 5, 4, 4, 3, 3]
    assert [side_l2(i, 32, 32) for i in steps] == [29, 29, 21, 21, 15, 15, 11, 11, 7, 7, 5, 5, 5, 5, 3, 3]
    attack = torchattacks.Square(nn.Linear(1, 1), p_init=0.8, resc_schedule=False, n_queries=5000)
    for i in range(10_000):
        assert side_linf(i, 224, 224) == max(round(math.sqrt(attack.p_selection(i)) * 224), 1)


def test_the_first_points_are_vertical_stripes_at_corners() -> None:
    some = images(50, 2, 3, 5)
    delta = start_linf(some, 0.125, DRAW) - some.pixels
    assert torch.allclose(delta.abs(), torch.tensor(0.125))
    assert torch.equal(delta > 0, (delta[:, :, :1] > 0).expand_as(delta))
    assert 0.35 < (delta > 0).double().mean() < 0.65


def test_every_place_of_a_square_is_reached_equally_often() -> None:
    """A square of side 2 fits into 4 x 6 at 3 x 5 places; cells of a 1000-fold even grid are hit 1000 times each."""
    fitting = squares(2, torch.zeros(1, 1, 4, 6))
    grid = torch.cartesian_prod((torch.arange(60) + 0.5) / 60, (torch.arange(250) + 0.5) / 250)
    rows, columns = fitting.chosen(grid)
    places = (rows == 0).long().argmax(1) * 5 + (columns == 0).long().argmax(1)
    assert torch.bincount(places).tolist() == [1000] * 15
    last = fitting.chosen(torch.full((1, 2), 1 - 2**-24))
    assert [part.tolist() for part in last] == [[[-1, -1, 0, 1]], [[-1, -1, -1, -1, 0, 1]]]


def test_a_square_takes_one_colour_and_none_is_wasted() -> None:
    some = images(200, 3, 5, 7)
    fitting = squares(3, some.pixels)
    begun = start_linf(some, 0.125, DRAW)
    picks = DRAW.named("picks").uniform(some.ids, (5,))
    first = propose_linf(begun, some.pixels, 0.125, fitting, picks)
    again = propose_linf(first, some.pixels, 0.125, fitting, picks)
    for before, after in ((begun, first), (first, again)):
        assert (before != after).flatten(1).any(1).all()
        assert torch.allclose((after - some.pixels).abs(), torch.tensor(0.125))
    turned = (first != again).double()
    assert torch.equal(turned.sum((1, 2, 3)), torch.full((200,), 27.0, dtype=torch.float64)), "3 x 3 in 3 channels"
    inside = turned.bool()[:, 0]
    colours = torch.stack([(first - some.pixels)[:, c].sign()[inside].view(200, 9) for c in range(3)], 1)
    assert (colours == colours[:, :, :1]).all()
    assert len(set(map(tuple, colours[:, :, 0].tolist()))) == 8


@pytest.mark.parametrize(("shape", "queries"), [((1, 3, 3), 200), ((2, 1, 3), 200)])
def test_square_attains_the_corner_of_a_linear_model(
    shape: tuple[int, int, int], queries: int, attackable: Any
) -> None:
    """Squares are single pixels, in a 3 x 3 image after the first 51, and the best corner needs each pixel's best
    colour drawn once, with a chance of at least 1 / 2^channels at the pixel: 149 draws among 9 pixels of one channel,
    or 200 among 3 pixels of two, miss one with P < 9 exp(-149 / 9) or 3 exp(-200 / 12), 1e-6 a sample.
    """
    weight = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(11))
    some = images(8, *shape)
    (pixels,) = run("square linf", some, attackable(Score(lambda x: x @ weight - 100)), ("0.125",), queries=queries)
    assert torch.allclose(pixels, some.pixels + 0.125 * weight.sign().view(shape), atol=1e-6)
    score, rise = (some.pixels - 0.5).flatten(1) @ weight, 0.125 * weight.abs().sum()
    for share, falls in ((0.999, True), (1.001, False)):
        near = Score(lambda x, share=share: x @ weight - (score[0] + share * rise))
        batches = run("square linf", some.rows([0]), attackable(near), ("0.125",), queries=queries)
        assert fooled(near, batches, some.labels[:1]).tolist() == [[falls]]


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 11])
def test_bumps_equal_the_published_ones(side: int) -> None:
    """torchattacks carries AutoAttack's code, which turns its bump by chance."""
    attack = torchattacks.Square(nn.Linear(1, 1), norm="L2")
    attack.device = "cpu"
    theirs = attack.eta(side)
    ours = bumps(side)
    assert ours[0].norm() == pytest.approx(1)
    assert torch.equal(ours[1], ours[0].T)
    assert torch.allclose(ours[0], theirs, atol=1e-6) or torch.allclose(ours[1], theirs, atol=1e-6)


def algorithm_3(delta: np.ndarray, eps: float, side: int, picks: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Return a step of the paper's third algorithm for one image, window by window and channel by channel."""
    channels, height, width = delta.shape
    top, left, top2, left2 = (int(p * (n - side + 1)) for p, n in zip(picks, (height, width) * 2, strict=False))
    one, two = np.zeros((2, height, width), dtype=bool)
    one[top : top + side, left : left + side] = True
    two[top2 : top2 + side, left2 : left2 + side] = True
    unused = max(eps**2 - (delta**2).sum(), 0)
    found = delta.copy()
    for channel in range(channels):
        sign = -1 if picks[5 + channel] < 0.5 else 1
        old = delta[channel][one].reshape(side, side)
        fresh = sign * shapes[int(picks[4] < 0.5)] + old / np.linalg.norm(old)
        available = np.sqrt((delta[channel][one | two] ** 2).sum() + unused / channels)
        found[channel][two] = 0
        found[channel][one] = (fresh / np.linalg.norm(fresh) * available).ravel()
    return found


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_step_in_l2_is_the_papers(share: float) -> None:
    """From a perturbation that spends a share of eps; afterwards all of it is spent."""
    eps, side = 0.3, 3
    some = images(60, 3, 7, 5)
    delta = share * (start_l2(some, eps, DRAW) - some.pixels)
    delta[:, :, 0, :3] += 0.01
    delta[:, :, 4:, :] += 0.003
    delta *= share * eps / delta.flatten(1).norm(dim=1)[:, None, None, None]
    picks = DRAW.named("picks").uniform(some.ids, (8,))
    ours = propose_l2(some.pixels + delta, some.pixels, eps, squares(side, some.pixels), picks) - some.pixels
    given = (some.pixels + delta - some.pixels).double().numpy()
    for row in range(60):
        expected = algorithm_3(given[row], eps, side, picks[row].double().numpy(), bumps(side).double().numpy())
        assert np.abs(ours[row].double().numpy() - expected).max() < 1e-5
    assert torch.allclose(ours.double().flatten(1).norm(dim=1), torch.tensor(eps).double(), rtol=1e-4)


def test_a_walk_in_l2_begins_on_the_sphere_with_a_grid_of_bumps() -> None:
    some = images(20, 2, 15, 11)
    delta = start_l2(some, 0.5, DRAW) - some.pixels
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.tensor(0.5), rtol=1e-5)
    tiles = delta[..., :14, :10].unfold(2, 2, 2).unfold(3, 2, 2)
    assert (delta[..., 14:, :] == 0).all()
    assert (delta[..., 10:] == 0).all()
    shapes = tiles.flatten(0, 3) / tiles.flatten(0, 3).flatten(1).norm(dim=1)[:, None, None]
    expected = torch.cat([bumps(2), -bumps(2)])
    nearest = (shapes[:, None] - expected).flatten(2).norm(dim=2)
    assert nearest.amin(1).max() < 1e-4
    assert torch.bincount(nearest.argmin(1)).min() > 200, "1400 tiles, four shapes equally likely"


def test_square_in_l2_falls_short_of_the_best_direction_by_less_than_half(attackable: Any) -> None:
    """The best direction is w. Squares cannot turn to it freely: 300 of them come over half of the way in 1 x 5 x 7."""
    weight = torch.randn(35, generator=torch.Generator().manual_seed(11))
    some = images(8, 1, 5, 7)
    (pixels,) = run("square l2", some, attackable(Score(lambda x: x @ weight - 100)), ("0.25",), queries=300)
    share = (pixels - some.pixels).flatten(1) @ weight / (0.25 * weight.norm())
    assert share.min() > 0.5
    assert share.max() < 1


@pytest.mark.parametrize(("norm", "eps"), [("linf", "0.03"), ("l2", "0.2")])
def test_square_fools_no_fewer_than_torchattacks(norm: str, eps: str, samples: Samples, target: Any) -> None:
    """Three seeds each, 60 squares, the published schedule."""
    ours = theirs = 0
    for seed in range(3):
        attack = torchattacks.Square(
            target.network,
            norm={"linf": "Linf", "l2": "L2"}[norm],
            eps=float(eps),
            n_queries=60,
            resc_schedule=False,
            seed=seed,
        )
        with torch.random.fork_rng():
            found = attack(samples.pixels, samples.labels)
        theirs += int((target.network(found).argmax(1) != samples.labels).sum())
        own = run(f"square {norm}", samples, target, (eps,), DRAW._replace(noise_seed=seed), queries=60)
        ours += int(fooled(target.network, own, samples.labels).sum())
    assert 12 < theirs <= ours < 3 * 37


# SPSA


def margin_slope(some: Samples, score: Any, attackable: Any, pairs: int, delta: float = 0.125) -> Tensor:
    return slope(some, Look(attackable(Score(score)), DRAW), DRAW, pairs, delta)


def test_the_guessed_slope_of_a_linear_model_is_its_weight_in_expectation(attackable: Any) -> None:
    """One pair guesses v (v . w): unbiased, with variance |w|^2 - w_j^2 in pixel j. Over 40 x 105 guesses of 512 pairs
    each, all lie within five standard deviations, and their mean square is 1 within five of its own.
    """
    weight = torch.randn(105, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    guess = margin_slope(images(40, 3, 5, 7), lambda x: x @ weight.float(), attackable, 512).flatten(1).double()
    deviation = ((weight.norm() ** 2 - weight**2) / 512).sqrt()
    error = (guess - weight) / deviation
    assert error.abs().max() < 5
    assert abs(error.mean().item()) < 5 / (40 * 105) ** 0.5
    assert abs((error**2).mean().item() - 1) < 5 * (2 / (40 * 105)) ** 0.5
    assert len({tuple(row) for row in guess.tolist()}) == 40, "each sample has its own directions"


def test_the_slope_is_that_of_the_given_point(attackable: Any) -> None:
    """A pair's difference is exact for a quadratic: f = -|x - 1/2|^2 / 2 guesses v (v . g), g = 1/2 - x.

    At twice the point, as cleverhans has it, g would be 1/2 - 2 x: several times as long, and far off.
    """
    some = images(8, 1, 5, 7)
    guess = margin_slope(some, lambda x: -(x**2).sum(1) / 2, attackable, 2048).flatten(1)
    expected = (0.5 - some.pixels).flatten(1)
    bound = 5 * expected.norm(dim=1, keepdim=True) / 2048**0.5
    assert ((guess - expected).abs() < bound).all()
    wrong = (0.5 - 2 * some.pixels).flatten(1)
    assert not ((guess - wrong).abs() < bound).any()


def test_pairs_lie_around_the_point_that_was_looked_at(attackable: Any) -> None:
    """Every step looks at a point, then at eleven pairs around it, delta away in every pixel."""
    seen: list[Tensor] = []

    def score(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.sum(1) - 100

    some = images(16, 1, 2, 3)
    run("spsa linf", some, attackable(Score(score)), ("0.2",), delta=0.0625)
    assert [len(x) // 16 for x in seen] == [1, *[1, 16, 6] * 3, 1]
    for step in range(3):
        point, *blocks = seen[1 + 3 * step : 4 + 3 * step]
        for block in blocks:
            ahead, behind = block.view(2, 16, -1, 6)
            assert torch.allclose((ahead + behind) / 2, point[:, None].expand_as(ahead), atol=1e-6)
            assert torch.allclose((ahead - behind).abs(), torch.tensor(0.125), atol=1e-6)


def test_adam_is_adam() -> None:
    """Steps up a constant slope have length 1. After 1 and 3: mean .9 x .1 + .1 x 3 = .39 over .19, mean square
    .999 x .001 + .001 x 9 = .009999 over .001999, so the second step is .917772; an idle pixel never moves.
    """
    steady = Adam(torch.zeros(1, 1, 1, 2))
    for _ in range(5):
        assert steady.step(torch.tensor([[[[1e-6, -400.0]]]])).flatten().tolist() == pytest.approx([1, -1], rel=1e-4)
    adam = Adam(torch.zeros(1, 1, 1, 2))
    assert adam.step(torch.tensor([[[[1.0, 0.0]]]])).flatten().tolist() == pytest.approx([1, 0])
    assert adam.step(torch.tensor([[[[3.0, 0.0]]]])).flatten().tolist() == pytest.approx([0.917772, 0], rel=1e-5)


def test_spsa_finds_a_summit_inside_the_ball(attackable: Any) -> None:
    """f = -|x - a|^2 with a inside the ball: walks end at a, where a slope taken elsewhere would not vanish."""
    some = images(8, 1, 2, 3)._replace(pixels=torch.full((8, 1, 2, 3), 0.5))
    summit = torch.linspace(-0.03, 0.03, 6)
    network = Score(lambda x: -((x - summit) ** 2).sum(1) - 1)
    (pixels,) = run("spsa linf", some, attackable(network), ("0.06",), steps=120, pairs=8, learning_rate=0.005)
    assert (pixels.flatten(1) - 0.5 - summit).abs().max() < 0.01


def test_spsa_goes_most_of_the_way_on_a_linear_model(attackable: Any) -> None:
    """Steps are of equal length in every pixel however sure the slope is, so weak pixels wander: 7/10 of L-inf's best
    rise are reached on 1 x 5 x 7 by 20 steps of 128 pairs, half of L2's.
    """
    weight = torch.randn(35, generator=torch.Generator().manual_seed(11))
    some, network = images(8, 1, 5, 7), Score(lambda x: x @ weight - 10)
    for norm, dual, least in (("linf", 1, 0.7), ("l2", 2, 0.5)):
        (pixels,) = run(
            f"spsa {norm}", some, attackable(network), ("0.125",), steps=20, pairs=128, restarts=1, learning_rate=0.02
        )
        share = (pixels - some.pixels).flatten(1) @ weight / (0.125 * weight.norm(p=dual))
        assert least < share.min()
        assert share.max() < 1


# Random noise


def test_random_noise_fools_as_often_as_chance_has_it_in_linf(attackable: Any) -> None:
    """Of six pixels, only the corner with all of them up passes 0.98 of the largest sum: one of 64, in every second
    draw. Points inside pass with P = (6 x 0.02)^6 / 6! / 2^6 < 1e-10.
    """
    some = images(400, 1, 2, 3)._replace(pixels=torch.full((400, 1, 2, 3), 0.5))
    network = Score(lambda x: x.sum(1) - 0.98 * 6 * 0.125)
    counts = {}
    for draws in (1, 2, 40):
        batches = run("random_noise linf", some, attackable(network), ("0.125",), draws=draws)
        counts[draws] = int(fooled(network, batches, some.labels).sum())
        chance = 1 - (63 / 64) ** ((draws + 1) // 2)
        assert abs(counts[draws] - 400 * chance) < 5 * (400 * chance * (1 - chance)) ** 0.5
    assert counts[1] == counts[2] < counts[40], "the second draw lies inside"


def test_random_noise_fools_as_often_as_chance_has_it_in_l2(attackable: Any) -> None:
    """A point of the sphere in n dimensions goes c of the way along w with P(cos > c) = P(Beta((n-1)/2, (n-1)/2) >
    (1 + c) / 2); one of the ball with the mean of P(cos > c / r) over r with density n r^(n-1).
    """
    n, c = 6, 0.7

    def cap(cosine: float) -> float:
        return float(beta.sf((1 + cosine) / 2, (n - 1) / 2, (n - 1) / 2))

    inside = quad(lambda r: cap(c / r) * n * r ** (n - 1), c, 1)[0]
    some = images(400, 1, 2, 3)._replace(pixels=torch.full((400, 1, 2, 3), 0.5))
    network = Score(lambda x: x.sum(1) - c * 0.125 * n**0.5)
    for draws, misses in ((1, 1 - cap(c)), (2, (1 - cap(c)) * (1 - inside)), (40, ((1 - cap(c)) * (1 - inside)) ** 20)):
        batches = run("random_noise l2", some, attackable(network), ("0.125",), draws=draws)
        count, chance = int(fooled(network, batches, some.labels).sum()), 1 - misses
        assert abs(count - 400 * chance) < 5 * (400 * chance * (1 - chance)) ** 0.5


def test_noise_is_the_same_at_every_eps_and_for_every_model(attackable: Any) -> None:
    shown: list[Tensor] = []

    def score(x: Tensor) -> Tensor:
        shown.append(x.clone())
        return 0 * x[:, 0] - 1

    some = images(9, 1, 2, 3)
    for eps in ("0.125", "0.25"):
        run("random_noise linf", some, attackable(Score(score)), (eps,), draws=6)
    clean, small, large = shown[0], shown[1:7], shown[8:]
    for one, two in zip(small, large, strict=True):
        assert torch.allclose(2 * (one - clean), two - clean, atol=1e-6)


# Stochastic models


@every_attack
def test_chance_errors_are_not_attacks(name: str) -> None:
    """A model blind to the pixels that errs on 5 % of its passes does so on fresh ones, whatever was searched: five
    standard deviations of 5050 passes are 1.5 points.
    """
    ids = tuple(f"image-{i}" for i in range(101))
    labels = torch.arange(101) % 5
    truth = dict(zip(ids, labels.tolist(), strict=True))

    def careless(pixels: Tensor, given: Sequence[str], draw: Draw) -> Tensor:
        classes = torch.tensor([truth[i] for i in given])
        shown = torch.where(draw.uniform(given, ()) < 0.05, (classes + 1) % 5, classes)
        return 4 * nn.functional.one_hot(shown, 5).float()

    samples = Samples(torch.rand(101, 1, 2, 3, generator=torch.Generator().manual_seed(1)), labels, ids)
    (pixels,) = run(name, samples, Answering(careless, deterministic=False), ("0.1",), passes=3)
    judge = Draw(0, "attack", "judge")
    errors = [careless(pixels, ids, judge.at(i)).argmax(1) != labels for i in range(50)]
    assert abs(torch.stack(errors).double().mean().item() - 0.05) < 5 * (0.05 * 0.95 / 5050) ** 0.5


@every_attack
def test_of_a_stochastic_model_the_point_with_the_highest_loss_is_kept(name: str, attackable: Any) -> None:
    """Declared stochastic, but without noise: the kept point is the highest of all that were looked at in the ball."""
    some = images(16, 1, 2, 3)
    weight = torch.tensor([1.0, -2.0, 3.0, -1.0, 0.5, -0.25])
    tried: list[Tensor] = []

    def noiseless(pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        score = (pixels - 0.5).flatten(1) @ weight
        tried.extend([pixels.clone()] if len(pixels) == 16 else [])
        return torch.stack([torch.zeros_like(score), score], 1)

    (pixels,) = run(name, some, Answering(noiseless, deterministic=False), ("0.125",), passes=2)
    highest = torch.stack([(x - 0.5).flatten(1) @ weight for x in tried]).amax(0)
    kept = (pixels - 0.5).flatten(1) @ weight
    assert torch.allclose(kept, highest, atol=1e-6)
    assert len(set(torch.stack([x.flatten(1) @ weight for x in tried])[:, 0].tolist())) > 3


def test_mistakes_are_named(samples: Samples, target: Any) -> None:
    for name in ("square", "spsa", "random_noise"):
        with pytest.raises(ValueError, match=f"unknown norm 'l1' for {name}; choose from linf, l2"):
            run(f"{name} linf", samples, target, norm="l1")
    with pytest.raises(ValueError, match="queries=0"):
        run("square linf", samples, target, queries=0)
    with pytest.raises(ValueError, match="restarts=0"):
        run("square l2", samples, target, restarts=0)
    for key, wrong in (("steps", 0), ("pairs", 0), ("restarts", 0), ("delta", 0.0), ("learning_rate", -0.1)):
        with pytest.raises(ValueError, match=f"{key}={wrong}"):
            run("spsa linf", samples, target, **{key: wrong})
    with pytest.raises(ValueError, match="draws=0"):
        run("random_noise linf", samples, target, draws=0)


@pytest.mark.parametrize("shift", [SQUARE, SPSA, RANDOM_NOISE])
def test_they_are_declared_as_what_they_are(shift: Shift) -> None:
    assert (shift.family, shift.knowledge, shift.ladder) == ("adversarial", "black_box", True)
    assert shift.choices == {"norm": tuple(BALLS)}
