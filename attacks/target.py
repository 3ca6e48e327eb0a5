"""Any module as an attack sees it: left exactly as it was found, whatever happens."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from .adversarial.isolation import isolated
from .draw import Draw
from .guard import tensor_of


class ModuleTarget:
    """A module in eval mode, from pixels in [0, 1] to logits, as a `Target`.

    Its parameters are used detached, so that neither their gradients nor their flags change and nothing is kept for
    them in the backward pass. A module in half precision is given pixels of its own type, and its logits come back in
    float32: the attack itself always computes in float32. A module that draws from the global generators of torch,
    numpy or Python has to be declared not deterministic: each pass then runs on a stream of its own, and the global
    ones stay where they were. Such a module draws for a whole batch at once, so its noise depends on the batch.

    Raises ValueError for a module in training mode, when it is given and when it is called, and for answers that are no
    tensors.
    """

    def __init__(self, module: nn.Module, *, deterministic: bool = True) -> None:
        self.module = module
        self.deterministic = deterministic
        self._check_mode()

    def __call__(self, pixels: Tensor, ids: Sequence[str], draw: Draw) -> Tensor:
        """Return logits `[batch, class]`, float32."""
        self._check_mode()
        if self.deterministic:
            return self._logits(pixels)
        with isolated(int(draw.named(f"{draw.name}.global").uniform(("pass",), ()).item() * 2**24)):
            return self._logits(pixels)

    def _check_mode(self) -> None:
        training = next((name or "it" for name, part in self.module.named_modules() if part.training), None)
        if training is not None:
            raise ValueError(
                f"an attacked {type(self.module).__name__} must be in eval mode, but {training} is in training mode; "
                "call .eval() on the model before it is attacked"
            )

    def _logits(self, pixels: Tensor) -> Tensor:
        tensors = {name: kept(tensor) for name, tensor in self.module.named_parameters()}
        kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
        kind = kinds.pop() if len(kinds) == 1 else pixels.dtype
        tensors |= {name: kept(tensor) for name, tensor in self.module.named_buffers() if tensor.is_inference()}
        logits = tensor_of(functional_call(self.module, tensors, (pixels.to(kind),)))
        return logits.float() if logits.is_floating_point() else logits


def kept(tensor: Tensor) -> Tensor:
    """Return a tensor without its gradient; a copy of one made in inference mode, through which none can flow."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
