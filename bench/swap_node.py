"""The cells of a mechanism swap: the attention of each of two rows on the weights of the other, with its control."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..models.variant import Variant
from .cell_node import Measured, add_shifted
from .error import BadProtocol
from .node import Row
from .version import SWAP_VERSION

if TYPE_CHECKING:
    from .graph import Graph


def add_swap(graph: "Graph", pair: tuple[str, str], rows: Iterable[Row]) -> None:
    """Add the cells of a swap and note what of it is not applicable.

    Raises BadProtocol where a pair cannot be swapped at all.
    """
    known = {row.label: row for row in rows if row.role != "a/a"}
    first, second = (_row(known, label, pair) for label in pair)
    _check_swap(first.variant.value, second.variant.value, pair)
    if first.recipe.label != second.recipe.label:
        raise BadProtocol(f"swap {':'.join(pair)}: they are trained with different recipes; choose two of one track")
    for own, other in ((first, second), (second, first)):
        logits = own.variant.value.logits and other.variant.value.logits
        quiet = not own.variant.value.noise and not other.variant.value.noise
        if not logits or not quiet:
            reason = "both need logits and no noise" if not logits else "noise at inference moves the logits by itself"
            graph.unfit[f"control of {other.label} on the weights of {own.label}", reason] = None
        for fold in graph.protocol.folds:
            for seed in own.seeds(graph.protocol.training_seeds):
                model = graph.train(own.label, own.variant, own.recipe, fold, seed)
                for control in (False, True) if logits and quiet else (False,):
                    specification = {
                        "node": "swap",
                        "model": model.specification,
                        "variant": dict(other.variant.identity),
                        "control": control,
                        "seed": graph.protocol.noise_seed,
                        "version": SWAP_VERSION,
                    }
                    attention = own if control else other
                    measured = Measured(own, model, specification, attention.variant.value, other.label, control)
                    add_shifted(graph, measured)


def _row(known: Mapping[str, Row], label: str, pair: tuple[str, str]) -> Row:
    if label not in known:
        raise BadProtocol(f"swap {':'.join(pair)}: '{label}' is no row; the rows are {', '.join(known)}")
    return known[label]


def _check_swap(first: Variant, second: Variant, pair: tuple[str, str]) -> None:
    """Raise BadProtocol where two variants do not share the tensors around their attention."""
    for variant in (first, second):
        if (
            variant.builds == "network"
            or variant.measured
            or variant.parameters_of
            or variant.pretrained == "impossible"
        ):
            raise BadProtocol(
                f"swap {':'.join(pair)}: '{variant.name}' cannot work on weights of another attention "
                "(a network of its own, a matched control, or other projections); choose two that share them"
            )
    if first.norm != second.norm or first.extra_tokens != second.extra_tokens:
        raise BadProtocol(f"swap {':'.join(pair)}: they want different norms or tokens; choose two that share them")
