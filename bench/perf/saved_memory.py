"""How many bytes a computation keeps for its backward pass, counted and not sampled."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_memory(run: Callable[[], object], apart: Iterable[Tensor] = ()) -> int:
    """Return the bytes of all that was saved for a backward pass during a call, each storage once, at its full size.

    The storages of `apart`, such as a network's weights, are left out. A call that goes forward several times is
    counted as if it kept all of it to the end.

    >>> import torch
    >>> x = torch.zeros(100, requires_grad=True)
    >>> saved_memory(lambda: x.exp().exp())  # a derivative of exp is read off its output: 2 x 100 x 4 bytes
    800
    """
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    known = {tensor.untyped_storage().data_ptr() for tensor in apart}
    return sum(t.untyped_storage().nbytes() for place, t in saved.items() if place not in known)
