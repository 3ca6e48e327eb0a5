"""A softmax can be brought to the temperature of any network whose attention has logits."""

import pytest
import torch

from attnbench.models.logit_spread import logit_spread, spread
from attnbench.models.variants.elliptical import EllipticalAttention
from attnbench.models.variants.softmax import SoftmaxAttention
from attnbench.models.variants.softmax_matched import MatchedSoftmaxAttention
from attnbench.models.variants.twicing import TwicingAttention
from attnbench.models.vit import VisionTransformerShape, build

SHAPE = VisionTransformerShape(image=6, channels=2, patch=2, dim=15, depth=3, heads=5, classes=7)


def pixels(seed: int = 0, batch: int = 11) -> torch.Tensor:
    return torch.rand(batch, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_the_spread_of_small_logits_by_hand() -> None:
    # Rows of variance 4 and 0 in the first head, 1 and 9 in the second, whatever is added to a row.
    logits = torch.tensor([[[[-2.0, 2.0], [5.0, 5.0]], [[0.0, 2.0], [-3.0, 3.0]]]])
    assert spread(logits).tolist() == pytest.approx([2**0.5, 5**0.5])
    moved = logits + torch.tensor([100.0, -7.0])[:, None]
    assert spread(moved).tolist() == pytest.approx([2**0.5, 5**0.5])


def test_the_spread_is_the_root_of_the_mean_variance_over_samples() -> None:
    logits = torch.tensor([[[[-1.0, 1.0]]], [[[-7.0, 7.0]]]])
    assert spread(logits).tolist() == pytest.approx([5.0])


@pytest.mark.parametrize("scaling", ["max", "mean"])
def test_a_matched_softmax_spreads_its_logits_as_far_as_its_donor(scaling: str) -> None:
    donor = build(EllipticalAttention, {"scaling": scaling}, SHAPE, seed=3)
    with torch.no_grad():
        for block in donor.blocks:
            block.get_parameter("attention.q.weight").mul_(2)
    target = logit_spread(donor, pixels())
    matched = build(MatchedSoftmaxAttention, {"donor": "elliptical"}, SHAPE, 4, {"logit_spread": target})
    plain = build(SoftmaxAttention, {}, SHAPE, seed=4)
    assert torch.equal(matched(pixels()), plain(pixels()))
    assert (logit_spread(matched, pixels()) / target - 1).abs().max() > 0.1

    matched(pixels(), calibrating=True)
    torch.testing.assert_close(logit_spread(matched, pixels()), target, rtol=1e-5, atol=0)

    before = matched.state_dict()
    matched(pixels(seed=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in matched.state_dict().items())


def test_a_donor_without_logits_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="TwicingAttention has no logits"):
        logit_spread(build(TwicingAttention, {}, SHAPE, seed=0), pixels())


def test_measuring_leaves_no_hook_behind() -> None:
    model = build(TwicingAttention, {}, SHAPE, seed=0)
    with pytest.raises(TypeError):
        logit_spread(model, pixels())
    model(pixels())
