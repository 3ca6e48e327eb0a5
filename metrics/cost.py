"""What a model costs: parameters, floating-point operations, time and training memory, each for one input.

Every function takes a model whose `forward` takes pixels alone, with any number of rows, in eval mode and on the
device of the pixels. All but `latency`, the reading of a clock, are counts.
"""

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .metric import Metric

LATENCY_BATCH = 100
"""Inputs in one timed call."""

LATENCY_REPEATS = 20
"""Timed calls, of which the median counts."""


def parameters(model: nn.Module, pixels: Float[Tensor, "batch *size"]) -> float:
    """Return the number of scalars in the model's parameters, trainable or not, shared ones once.

    Buffers are left out: what a variant freezes after measuring it is not learned. The pixels are not looked at.

    >>> parameters(nn.Linear(3, 2), torch.zeros(1, 3))  # 3 x 2 weights and 2 biases
    8.0
    """
    return float(sum(p.numel() for p in model.parameters()))


@torch.no_grad()
def flops(model: nn.Module, pixels: Float[Tensor, "batch *size"]) -> float:
    """Return the floating-point operations of the matrix products and convolutions in the forward pass of one input.

    A multiplication and its addition count as two. Element-wise work (norms, softmax, activations, distances formed
    without a matrix product) is not counted. Attention counts as the two products that define it, whatever kernel runs.

    >>> flops(nn.Linear(3, 2), torch.zeros(5, 3))  # 2 x 3 x 2
    12.0
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(pixels[:1])
    return float(counter.get_total_flops())


@torch.no_grad()
def latency(model: nn.Module, pixels: Float[Tensor, "batch *size"]) -> float:
    """Return the microseconds an input of a forward pass over 100: the median of 20 calls after one that warms up.

    Fewer than 100 inputs are repeated in turn.
    """
    rows = pixels[torch.arange(LATENCY_BATCH, device=pixels.device) % len(pixels)]
    seconds = []
    for _ in range(LATENCY_REPEATS + 1):
        _wait(rows)
        start = time.perf_counter()
        model(rows)
        _wait(rows)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:]) * 1e6 / LATENCY_BATCH


def _wait(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)


def activation_memory(model: nn.Module, pixels: Float[Tensor, "batch *size"]) -> float:
    """Return the bytes that one more input makes the forward pass keep for the backward pass, in training mode.

    The difference between four inputs and two, halved: what does not grow with the batch (parameters, tables, products
    of parameters) cancels. A storage that several operations keep counts once. All parameters are taken as trainable. A
    copy of the model is used, so neither its mode, its statistics nor a freeze of its parameters changes.
    """
    trained = copy.deepcopy(model).train().requires_grad_(True)
    rows = pixels[torch.arange(4, device=pixels.device) % len(pixels)]
    less = rows[:2].clone()
    return (kept_bytes(lambda: trained(rows)) - kept_bytes(lambda: trained(less))) / 2


def kept_bytes(run: Callable[[], object]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass; a storage kept several times counts once.

    >>> x = torch.ones(10, requires_grad=True)
    >>> kept_bytes(lambda: x.exp())  # its result, 10 x 4 bytes
    40
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


PARAMETERS = Metric(
    name="parameters",
    measure=parameters,
    needs="model",
    version=1,
    axis="model",
    unit="parameters",
    better="lower",
    lowest=0.0,
    highest=None,
    null="none: a count",
    definition="number of scalars in the parameters, trainable or not, shared ones once; buffers left out",
    source="none needed",
    kept_by_sample=False,
)

FLOPS = Metric(
    name="flops",
    measure=flops,
    needs="model",
    version=1,
    axis="model",
    unit="operations/input",
    better="lower",
    lowest=0.0,
    highest=None,
    null="none: a count",
    definition="operations of matrix products and convolutions in the forward pass of one input, 2 for each "
    "multiplication with its addition; element-wise operations are not counted, attention is counted as two products",
    source="torch.utils.flop_counter",
    kept_by_sample=False,
)

LATENCY = Metric(
    name="latency",
    measure=latency,
    needs="model",
    version=1,
    axis="model",
    unit="us/input",
    better="lower",
    lowest=0.0,
    highest=None,
    null="none: a time",
    definition="median over 20 forward passes of 100 inputs after one warm-up, without gradients, divided by 100",
    source="none needed",
    volatile=True,
    kept_by_sample=False,
)

ACTIVATION_MEMORY = Metric(
    name="activation_memory",
    measure=activation_memory,
    needs="model",
    version=1,
    axis="model",
    unit="bytes/input",
    better="lower",
    lowest=0.0,
    highest=None,
    null="none: a count",
    definition="bytes kept for the backward pass in training mode, all parameters trainable, each storage once: "
    "(those of 4 inputs - those of 2) / 2",
    source="torch.autograd.graph.saved_tensors_hooks",
    kept_by_sample=False,
)
