"""Noise belongs to a sample, and streams of different uses are independent."""

import itertools

import pytest
import torch

from attnbench.attacks.draw import Distribution, Draw

DRAW = Draw(0, "pgd", "attack")
IDS = tuple(f"image-{i}" for i in range(23))
OTHERS = {
    "noise seed": DRAW._replace(noise_seed=1),
    "shift": DRAW._replace(shift="fgsm"),
    "purpose": DRAW._replace(purpose="judge"),
    "repeat": DRAW.at(1),
    "name": DRAW.named("start"),
}


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_a_row_depends_on_its_identity_alone(distribution: Distribution) -> None:
    whole = DRAW.of(distribution, IDS, (3, 5))
    assert torch.equal(DRAW.of(distribution, IDS[11:12], (3, 5))[0], whole[11])
    assert torch.equal(DRAW.of(distribution, IDS[::-1], (3, 5)), whole.flip(0))


def test_global_state_neither_matters_nor_moves() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = DRAW.normal(IDS, (7,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(DRAW.normal(IDS, (7,)), first)


@pytest.mark.parametrize("pair", list(itertools.combinations(("itself", *OTHERS), 2)), ids="-".join)
def test_streams_are_uncorrelated(pair: tuple[str, str]) -> None:
    """A correlation of n independent pairs has a standard deviation of 1 / sqrt(n)."""
    draws = {"itself": DRAW, **OTHERS}
    both = torch.stack([draws[name].normal(IDS, (1000,)).flatten() for name in pair])
    assert abs(torch.corrcoef(both)[0, 1].item()) < 5 / both.shape[1] ** 0.5


def test_samples_are_uncorrelated() -> None:
    rows = torch.corrcoef(DRAW.normal(IDS, (4000,)))
    assert (rows - torch.eye(len(IDS))).abs().max() < 5 / 4000**0.5


def test_moments() -> None:
    """Bounds are five standard errors: of a mean sd / sqrt(n), of a second moment sd(x^2) / sqrt(n)."""
    uniform, normal = DRAW.uniform(IDS, (4000,)).double(), DRAW.normal(IDS, (4000,)).double()
    n = uniform.numel()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean().item() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs((uniform**2).mean().item() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5
    assert abs(normal.mean().item()) < 5 / n**0.5
    assert abs((normal**2).mean().item() - 1) < 5 * (2 / n) ** 0.5
    assert abs((normal**4).mean().item() - 3) < 5 * (96 / n) ** 0.5
