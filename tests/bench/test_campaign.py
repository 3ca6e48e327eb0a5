"""Claims that take minutes: run by `make campaign`."""

import pytest
import torch

from attnbench.bench.catalog import open_catalog
from attnbench.bench.fit import calibration_samples
from attnbench.bench.target import ModelTarget
from attnbench.models.logit_spread import logit_spread
from attnbench.models.vit import VisionTransformer, VisionTransformerShape, build

pytestmark = pytest.mark.campaign


def trained(name: str, fold: int, seed: int = 0, **measured: torch.Tensor) -> VisionTransformer:
    catalog = open_catalog()
    task, variant, recipe = catalog.task("digits").value, catalog.variant(name), catalog.recipe("standard")
    shape = VisionTransformerShape(**task.pixels, classes=len(task.classes))
    model = build(variant.value.core, variant.settings, shape, seed, measured or None)
    recipe.value.fit(model, task.load(fold).train, seed, **recipe.settings)
    return model


def test_softmax_reaches_92_percent_as_the_mean_of_five_folds() -> None:
    task = open_catalog().task("digits").value
    shares = []
    for fold in range(task.folds):
        test = task.load(fold).test
        model = trained("softmax", fold)
        with torch.no_grad():
            shares.append((model(test.pixels).argmax(1) == test.labels).double().mean().item())
    assert sum(shares) / len(shares) >= 0.92, shares


def test_a_matched_softmax_meets_its_donors_spread_after_training() -> None:
    pixels = calibration_samples(open_catalog().task("digits").value.load(0).train).pixels
    wanted = logit_spread(ModelTarget(trained("elliptical", 0)).model, pixels).float()
    matched = trained("softmax_matched", 0, logit_spread=wanted)
    torch.testing.assert_close(logit_spread(matched.eval(), pixels).float(), wanted, rtol=1e-4, atol=0)
