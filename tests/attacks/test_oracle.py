"""Beside independent implementations, from the same starts and on equal budgets, ours break no fewer samples."""

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from oracle.contest import Attack, Contest, Tally, sizes, table, tally
from oracle.side import OFFICIAL, Budget, our_smallest, ours, references, rivals
from oracle.victim import TRAININGS, held_out, trained
from torch import Tensor, nn

from attnbench.attacks.adversarial.autoattack import QUERIES, STEPS, TARGETS
from attnbench.attacks.samples import Samples

SEEDS = (0, 1, 2)
"""Of the trainings."""
SHORT = Budget(40, 2, 200)
"""Where the official one takes minutes."""
SHARES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Of the ball, at which searches for the smallest perturbation are compared."""
every_kind = pytest.mark.parametrize("kind", TRAININGS)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


class Field(NamedTuple):
    """Networks, and for each the samples that it gets right."""

    networks: list[nn.Module]
    samples: list[Samples]

    def tally(self, attack: Attack, eps: float, norm: str) -> Tally:
        return tally(attack, self.networks, self.samples, eps, norm)


@pytest.fixture(scope="module")
def field() -> Callable[[str], Field]:
    """Called with the name of a training, returns three networks with 500 digits each."""
    known: dict[str, Field] = {}

    def fielded(kind: str) -> Field:
        if kind not in known:
            networks: list[nn.Module] = [trained(TRAININGS[kind], seed) for seed in SEEDS]
            known[kind] = Field(networks, [held_out(network) for network in networks])
        return known[kind]

    return fielded


@pytest.fixture(scope="module")
def few() -> Field:
    """One network, trained shortly, and what it gets right of 100 digits."""
    network = trained(TRAININGS["adversarial"]._replace(epochs=4), 0)
    return Field([network], [held_out(network, 100)])


def fought(field: Field, budget: Budget, eps: float, norm: str) -> list[Contest]:
    """Let every attack of ours and every rival of it meet the same samples."""
    others, done = rivals(budget), []
    for name, attack in ours(budget).items():
        own = field.tally(attack, eps, norm)
        done += [Contest(name, rival, own, field.tally(other, eps, norm)) for rival, other in others[name].items()]
    return done


def lost(all_: list[Contest]) -> list[str]:
    return [f"{one.attack} beside {one.rival}: {one.lost}" for one in all_ if one.lost]


@every_norm
def test_ours_break_no_fewer_of_100_digits(norm: str, few: Field) -> None:
    """AutoAttack, whose members are among these, meets its rivals in the campaign."""
    all_ = fought(few, SHORT, TRAININGS["adversarial"].balls[norm], norm)
    assert {one.attack for one in all_} == set(ours(SHORT))
    for one in all_:
        assert one.ours.broken.any(), one.attack
        assert not one.ours.broken.all(), one.attack
    assert lost(all_) == []


@pytest.mark.campaign
@every_norm
@every_kind
def test_ours_break_no_fewer_of_500_digits_over_three_seeds(
    kind: str, norm: str, field: Callable[[str], Field]
) -> None:
    """The union of all attacks and the share of each are in the table: `pytest -s` shows it."""
    eps = TRAININGS[kind].balls[norm]
    all_ = fought(field(kind), OFFICIAL, eps, norm)
    sys.stdout.write(f"\n\n{table(f'{kind}, {norm} {eps}', all_)}\n")
    assert lost(all_) == []
    stand = 1 - all_[-1].ours.broken.double().mean().item()
    assert 0.2 <= stand <= 0.8


@pytest.mark.campaign
@every_norm
@every_kind
def test_our_fmn_finds_no_larger_perturbations(kind: str, norm: str, field: Callable[[str], Field]) -> None:
    """Within five balls it breaks no fewer, and its median is no larger."""
    some, eps = field(kind), TRAININGS[kind].balls[norm]
    known = {"ours": our_smallest(OFFICIAL), **rivals(OFFICIAL)["fmn"]}
    found = {name: smallest_sizes(attack, some, eps, norm) for name, attack in known.items()}
    shown = found | {name: smallest_sizes(a, some, eps, norm) for name, a in references(norm, OFFICIAL).items()}
    lines = [f"{kind}, {norm}: broken within {', '.join(f'{eps * share:g}' for share in SHARES)}; median"]
    for name, norms in shown.items():
        lines.append(f"{name}: {', '.join(map(str, within(norms, eps)))}; {norms.median().item():.4f}")
    sys.stdout.write("\n\n" + "\n".join(lines) + "\n")
    for name in known:
        assert found["ours"].median() <= found[name].median(), name
        assert all(a >= b for a, b in zip(within(found["ours"], eps), within(found[name], eps), strict=True)), name


def smallest_sizes(attack: Attack, field: Field, eps: float, norm: str) -> Tensor:
    """Return the size of what fools each sample, infinite where nothing was found."""
    found = []
    for network, samples in zip(field.networks, field.samples, strict=True):
        points = attack(network, samples, eps, norm)
        fooled = network(points).argmax(1) != samples.labels
        found.append(torch.where(fooled, sizes(points, samples.pixels, norm), math.inf))
    return torch.cat(found)


def within(norms: Tensor, eps: float) -> list[int]:
    return [int((norms <= eps * share * (1 + 1e-6)).sum()) for share in SHARES]


def test_the_official_budget_is_that_of_our_autoattack() -> None:
    assert (STEPS, TARGETS, QUERIES) == OFFICIAL


def test_only_points_inside_ball_and_box_count_and_every_pass_does(few: Field) -> None:
    """Black images fool the network; they are too far away, and images below 0 are outside the box."""
    count = len(few.samples[0].ids)

    def black(network: nn.Module, samples: Samples, eps: float, norm: str) -> Tensor:
        network(samples.pixels.clone().requires_grad_()).sum().backward()
        return torch.zeros_like(network(samples.pixels).detach()[:, :0].sum(1)[:, None, None, None] + samples.pixels)

    near, far = (few.tally(black, eps, "linf") for eps in (0.5, 1.0))
    assert (near.looks, near.slopes) == (2, 1)
    assert not near.broken.any()
    assert far.broken.sum() > count / 2
    assert not few.tally(lambda *given: black(*given) - 1e-6, 2.0, "linf").broken.any()


def test_a_contest_is_lost_by_fewer_samples_and_by_more_passes() -> None:
    """Six against none are told apart at 5 %, 1/64; four are not, 1/16, and are fewer in total all the same."""

    def contest(ours: int, theirs: int, passes: int = 0) -> Contest:
        index = torch.arange(10)
        return Contest("ours", "theirs", Tally(index < ours, 1 + passes, 1), Tally(index >= 10 - theirs, 1, 1))

    assert contest(5, 5).lost == ""
    assert contest(5, 4).lost == ""
    assert contest(0, 4).lost == "fewer in total"
    assert contest(0, 4).chance == 1 / 16
    assert contest(0, 6).lost == "fewer in total, fewer, p = 0.016"
    assert contest(5, 5, 1).lost == "more passes"
    assert contest(10, 10).chance == 1
