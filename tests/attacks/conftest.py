"""A small network and some images for it; sizes are different primes, so that no axis can stand in for another."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples


class Deterministic:
    """A network as an attack sees it, which remembers what it was shown."""

    deterministic = True

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.shown: list[tuple[str, ...]] = []
        self.draws: list[Draw] = []

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        assert len(ids) == len(pixels)
        self.shown.append(tuple(ids))
        self.draws.append(draw)
        logits: Tensor = self.network(pixels)
        return logits


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """A network whose width is a multiple of 16: at odd widths last bits depend on a sample's place in the batch."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(105, 16), nn.ReLU(), nn.Linear(16, 5))
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        parameter.requires_grad_(False)
    return layers


@pytest.fixture(scope="session")
def attackable() -> type[Deterministic]:
    """Called with a network, returns it as an attack sees it."""
    return Deterministic


@pytest.fixture
def target(network: nn.Module) -> Deterministic:
    return Deterministic(network)


@pytest.fixture(scope="session")
def samples(network: nn.Module) -> Samples:
    """37 images of 3 x 5 x 7, of which the network gets the first 4 wrong."""
    pixels = torch.rand(37, 3, 5, 7, generator=torch.Generator().manual_seed(7))
    labels = network(pixels).argmax(1)
    labels[:4] = (labels[:4] + 1) % 5
    return Samples(pixels, labels, tuple(f"image-{i}" for i in range(37)))
