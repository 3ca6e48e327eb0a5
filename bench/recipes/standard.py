"""Plain training, the same for every variant: AdamW, a cosine schedule, smoothed labels and mixed pairs."""

from ..fit import fit
from ..recipe import Recipe

STANDARD = Recipe(
    name="standard",
    fit=fit,
    version=1,
    source="AdamW of arXiv:1711.05101; settings chosen for softmax attention on held-out blocks of the training side",
    summary="AdamW with warm-up, cosine decay, label smoothing and mixup; about 15 s a model on digits.",
    settings={
        "epochs": 20,
        "batch": 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "label_smoothing": 0.1,
        "mixup": 0.5,
        "clip": 1.0,
    },
)
