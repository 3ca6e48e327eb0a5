"""Puts another attention on trained weights, or perturbs the own one as far, as a swap cell asks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attacks.draw import Draw
from ..models.network import Network
from ..models.swap import exchange, perturb
from .fit import calibrate, calibration_samples

if TYPE_CHECKING:
    from .workplace import Workplace


class Swapped(NamedTuple):
    """A network with another attention, or with its own one perturbed, and what a report should know of it."""

    network: Network
    """Ready to be measured."""
    facts: dict[str, Any]
    """What became of the weights, or how far the logits moved."""


def swapped(place: "Workplace", model: Network, specification: Mapping[str, Any]) -> Swapped:
    """Return the network that a `swap` specification names, from the trained one.

    Frozen quantities of the other attention are measured anew, on the calibration samples.
    """
    trained = specification["model"]
    network = place.network(trained, specification["variant"], start=False)
    given = exchange(model.state_dict(), network)
    samples = calibration_samples(place.samples(trained).train)
    calibrate(network, samples, Draw(trained["training_seed"], "train", "calibrate"))
    network.eval()
    if not specification["control"]:
        return Swapped(network, {"initial": list(given.initial), "dropped": list(given.dropped)})
    model.eval()
    asked, met = perturb(model, network.attentions(), samples.pixels.to(place.options.device), specification["seed"])
    return Swapped(model, {"logit_change_asked": asked.tolist(), "logit_change_met": met.tolist()})
