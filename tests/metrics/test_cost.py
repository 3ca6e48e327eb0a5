import time

import pytest
import torch
from torch import nn

from attnbench.metrics.cost import LATENCY, activation_memory, flops, latency, parameters
from attnbench.models.variants.softmax import SoftmaxAttention
from attnbench.models.vit import VisionTransformerShape, build

SHAPE = VisionTransformerShape(image=6, channels=3, patch=2, dim=20, depth=2, heads=4, mlp_ratio=1.5, classes=7)
PIXELS = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))
TOKENS, DIM, DEPTH, HIDDEN, PATCH, CLASSES = 9, 20, 2, 30, 12, 7


@pytest.fixture(scope="module")
def model():
    return build(SoftmaxAttention, {}, SHAPE, 0).eval()


def test_parameters_of_the_vision_transformer_by_hand(model):
    embedding = PATCH * DIM + DIM + TOKENS * DIM
    attention = 4 * (DIM * DIM + DIM)
    mlp = DIM * HIDDEN + HIDDEN + HIDDEN * DIM + DIM
    block = attention + mlp + 2 * 2 * DIM
    assert parameters(model, PIXELS) == embedding + DEPTH * block + 2 * DIM + DIM * CLASSES + CLASSES


def test_parameters_count_frozen_and_shared_ones_once_and_no_buffers():
    shared = nn.Linear(3, 2)
    network = nn.Sequential(shared, nn.BatchNorm1d(2, affine=False), shared)
    network.requires_grad_(False)
    assert parameters(network, torch.zeros(1, 3)) == 8


def test_flops_of_the_vision_transformer_by_hand(model):
    projections = 4 * 2 * TOKENS * DIM * DIM
    products = 2 * 2 * TOKENS * TOKENS * DIM
    mlp = 2 * 2 * TOKENS * DIM * HIDDEN
    expected = 2 * TOKENS * PATCH * DIM + DEPTH * (projections + products + mlp) + 2 * DIM * CLASSES
    assert flops(model, PIXELS) == expected


def test_flops_are_those_of_one_input_whatever_the_batch(model):
    assert flops(model, PIXELS) == flops(model, PIXELS[:1])


def test_flops_of_a_convolution_by_hand():
    # 4 x 4 outputs, 2 channels out, 3 in, 3 x 3 kernel; 2 operations each.
    assert flops(nn.Conv2d(3, 2, 3), PIXELS) == 2 * 16 * 2 * 3 * 9


class Two(nn.Module):
    """Two layers with a ReLU between, and a product of parameters that every batch size keeps alike."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.second = nn.Linear(5, 2)
        self.gate = nn.Parameter(torch.ones(2))

    def forward(self, pixels):
        return self.second(self.first(pixels).relu()) + (self.gate * self.gate.exp()).sum()


def test_activation_memory_of_a_small_network_by_hand():
    # Kept for each input: 3 numbers that the first layer read, 5 that ReLU gave, which the second layer read, once.
    assert activation_memory(Two(), torch.rand(4, 3)) == 4 * (3 + 5)


def test_activation_memory_repeats_itself_and_needs_no_more_than_one_input(model):
    once = activation_memory(model, PIXELS)
    assert once > 0
    assert activation_memory(model, PIXELS) == once
    assert activation_memory(model, PIXELS[:1]) == once


def test_activation_memory_leaves_mode_statistics_and_freeze_alone_and_ignores_them():
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    before = activation_memory(network, torch.rand(4, 3))
    network.eval().requires_grad_(False)
    statistics = network[1].running_mean.clone()
    assert activation_memory(network, torch.rand(4, 3)) == before
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(network[1].running_mean, statistics)


class Slow(nn.Module):
    """Takes ten milliseconds a call, and a second for the first."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.gradients = []

    def forward(self, pixels):
        time.sleep(0.01 if self.batches else 0.5)
        self.batches.append(len(pixels))
        self.gradients.append(torch.is_grad_enabled())
        return pixels


def test_latency_is_microseconds_an_input_without_the_first_call_and_without_gradients():
    network = Slow()
    assert 100 <= latency(network, torch.rand(7, 3)) < 1000
    assert network.batches == [100] * 21
    assert not any(network.gradients)
    assert LATENCY.volatile
