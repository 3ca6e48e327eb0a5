import math

import torch

from attnbench.metrics.accuracy import accuracy
from attnbench.metrics.observation import Observation


def shares(logits, targets):
    return accuracy(Observation(torch.tensor(logits), torch.tensor(targets), {})).tolist()


def test_one_pass_is_right_or_wrong():
    assert shares([[[0.1, 0.9, 0.0], [0.5, 0.1, 0.2], [0.0, 0.1, 0.2]]], [1, 1, 2]) == [1.0, 0.0, 1.0]


def test_several_passes_give_the_share_of_right_ones():
    assert shares([[[1.0, 0.0]], [[0.0, 1.0]], [[2.0, 1.0]], [[5.0, -1.0]]], [0]) == [0.75]


def test_the_first_of_tied_logits_is_the_answer():
    assert shares([[[1.0, 1.0], [1.0, 1.0]]], [0, 1]) == [1.0, 0.0]


def test_an_input_with_a_nan_is_undefined_and_infinite_logits_are_answers():
    nan, infinite = float("nan"), float("inf")
    undefined, right, wrong = shares(
        [[[1.0, 0.0], [infinite, 0.0], [-infinite, 0.0]], [[nan, 0.0], [1.0, 0.0], [0.0, 1.0]]], [0, 0, 0]
    )
    assert math.isnan(undefined)
    assert (right, wrong) == (1.0, 0.0)
