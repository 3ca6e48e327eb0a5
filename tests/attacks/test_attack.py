"""The door from Python: any module, pixels and labels in; images and right answers out."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.adversarial.pgd import PGD
from attnbench.attacks.attack import attack
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import JUDGE_PASSES, Samples
from attnbench.attacks.target import ModuleTarget


class Plane(nn.Module):
    """Two classes, told apart by a plane that no attack of eps 0.2 leaves the box to cross."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(1)))

    def forward(self, pixels: Tensor) -> Tensor:
        score = ((pixels - 0.5).flatten(1) * self.weight).sum(1)
        return torch.stack([score, -score], 1)


def images() -> Tensor:
    return 0.25 + 0.5 * torch.rand(200, 3, 2, 2, generator=torch.Generator().manual_seed(2))


def test_a_plane_gives_way_where_its_distance_says() -> None:
    """|w (x - 1/2)| is at most eps |w|_1 for what falls."""
    plane, pixels = Plane().eval(), images()
    with torch.no_grad():
        labels = plane(pixels).argmax(1)
        reach = ((pixels - 0.5).flatten(1) @ plane.weight).abs() / plane.weight.abs().sum()
    found = attack(PGD, plane, pixels, labels, ("0.01", "1/20", "0.2"), steps=8, relative_step=0.5)
    expected = torch.stack([(reach > eps).double() for eps in (0.01, 0.05, 0.2)])
    assert torch.equal(found.right, expected)
    assert found.accuracy == expected.mean(1).tolist()
    assert 0 < found.accuracy[1] < found.accuracy[0] < 1
    assert all(weight.grad is None and weight.requires_grad for weight in plane.parameters())


def test_it_is_the_shift_itself_with_its_defaults() -> None:
    plane, pixels = Plane().eval(), images()
    labels = torch.arange(200) % 2
    found = attack(PGD, plane, pixels, labels, noise_seed=3)
    samples = Samples(pixels, labels, tuple(map(str, range(200))))
    own = PGD.apply(samples, PGD.severities, Draw(3, "pgd", "attack"), ModuleTarget(plane), **PGD.settings)
    assert len(found.pixels) == len(PGD.severities)
    assert all(torch.equal(a, b) for a, b in zip(found.pixels, own, strict=True))


def test_a_stochastic_model_is_judged_on_fresh_passes() -> None:
    class Coin:
        deterministic = False

        def __init__(self) -> None:
            self.judged: list[Draw] = []

        def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
            if draw.purpose == "judge":
                self.judged.append(draw)
            side = draw.uniform(ids, (1,)) - 0.5 + 0 * pixels.flatten(1).sum(1, keepdim=True)
            return torch.cat([side, -side], 1)

    coin = Coin()
    found = attack(PGD, coin, images(), torch.zeros(200, dtype=torch.long), ("0.1",), steps=2)
    assert len(set(coin.judged)) == JUDGE_PASSES
    assert found.accuracy[0] == pytest.approx(0.5, abs=4 * 0.5 / (200 * JUDGE_PASSES) ** 0.5)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match="pgd has no setting step; its settings: norm, steps"):
        attack(PGD, Plane().eval(), images(), torch.zeros(200, dtype=torch.long), step=3)
