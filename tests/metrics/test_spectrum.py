import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnbench.metrics.spectrum import hill_number

ORDERS = [0.0, 0.5, 1.0, 2.0, 3.0, math.inf]


def hill(weights, order):
    return hill_number(torch.tensor(weights, dtype=torch.float64), order).item()


@pytest.mark.parametrize("order", ORDERS)
def test_equal_weights_are_counted_and_zeros_are_not(order):
    assert hill([0.3, 0.3, 0.3, 0.3, 0.3], order) == pytest.approx(5, rel=1e-12)
    assert hill([7.0, 0.0, 7.0, 0.0], order) == pytest.approx(2, rel=1e-12)
    assert hill([0.0, 4.0], order) == pytest.approx(1, rel=1e-12)


def test_three_weights_by_hand():
    # Shares 1/2, 1/4, 1/4: entropy 3/2 ln 2; sum of squares 3/8; sum of cubes 5/32; largest 1/2.
    weights = [2.0, 1.0, 1.0, 0.0]
    assert hill(weights, 0.0) == pytest.approx(3)
    assert hill(weights, 1.0) == pytest.approx(2**1.5)
    assert hill(weights, 2.0) == pytest.approx(8 / 3)
    assert hill(weights, 3.0) == pytest.approx(math.sqrt(32 / 5))
    assert hill(weights, math.inf) == pytest.approx(2)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any))
def test_values_fall_with_the_order_and_stay_between_one_and_the_number_of_weights(weights):
    values = [hill(weights, order) for order in ORDERS]
    assert all(high >= low * (1 - 1e-9) for high, low in pairwise(values))
    assert values[-1] >= 1 - 1e-9
    assert values[0] <= len(weights)


def test_equicorrelated_tokens_have_the_published_participation_ratio_and_stable_rank():
    # 50 tokens with pairwise cosine .7: eigenvalues 1 + 49 x .7, once, and .3, 49 times.
    weights = [35.3] + [0.3] * 49
    assert hill(weights, math.inf) == pytest.approx(1.41643, abs=5e-6)
    assert hill(weights, 2.0) == pytest.approx(1.99920, abs=5e-6)


def test_rounding_below_zero_counts_as_zero_and_nothing_positive_is_undefined():
    assert hill([1.0, 1.0, -1e-17], 0.0) == 2
    assert math.isnan(hill([0.0, 0.0], 1.0))


def test_leading_axes_are_kept():
    weights = torch.ones(2, 3, 4)
    assert torch.equal(hill_number(weights, 2.0), torch.full((2, 3), 4.0))
