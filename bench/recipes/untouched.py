"""No training: the network is measured with the weights it starts from; what is frozen by measuring is measured."""

from collections.abc import Mapping

from ...attacks.draw import Draw
from ...attacks.samples import Samples
from ...models.network import Network
from ..fit import calibrate, calibration_samples
from ..recipe import Recipe


def fit(model: Network, train: Samples, seed: int) -> Mapping[str, float]:
    """Calibrate what has frozen quantities and leave the rest; return the fact `epochs`, 0."""
    calibrate(model, calibration_samples(train), Draw(seed, "train", "calibrate"))
    model.eval()
    return {"epochs": 0.0}


UNTOUCHED = Recipe(
    name="untouched",
    fit=fit,
    version=1,
    source="none needed",
    summary="No training: measures the weights that a backbone starts from, or initial values.",
)
