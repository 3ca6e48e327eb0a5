"""A few seconds of training, to see a whole run work; its numbers are not results."""

from ..fit import fit
from ..recipe import Recipe

SMOKE = Recipe(
    name="smoke",
    fit=fit,
    version=1,
    source="the standard recipe, cut short",
    summary="The standard recipe cut to a few epochs, about 4 s a model on digits; for trying things out only.",
    settings={
        "epochs": 6,
        "batch": 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "label_smoothing": 0.1,
        "mixup": 0.5,
        "clip": 1.0,
    },
)
