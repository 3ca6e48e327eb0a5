"""The most bytes that tensors hold at one time while some code runs, counted and not sampled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def live_memory(run: Callable[[], object]) -> int:
    """Return the peak, over all operations of a call, of the bytes that were allocated in it and are still referred to.

    Forward and backward operations count, saved tensors and gradients too, each storage once, at its full size however
    small the view. What was there before the call is left out; so is scratch that a kernel frees before it returns.

    >>> import torch
    >>> x = torch.zeros(100)
    >>> live_memory(lambda: (x + 1) + 2)  # the first sum is alive until the second is there: 2 x 100 x 4 bytes
    800
    """
    watch = _Watch()
    with watch:
        run()
    return watch.peak


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation and holds its storages weakly."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.made: dict[StorageWeakRef, int] = {}
        self.foreign: set[StorageWeakRef] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        # A storage first met as an argument was not made here; a view of it must not count when it comes out.
        self.foreign.update(reference for reference, _ in _storages((args, given)) if reference not in self.made)
        found = func(*args, **given)
        self.made.update((r, size) for r, size in _storages(found) if r not in self.foreign)
        self.made = {reference: size for reference, size in self.made.items() if not reference.expired()}  # type: ignore[no-untyped-call]
        self.peak = max(self.peak, sum(self.made.values()))
        return found


def _storages(tree: Any) -> Iterator[tuple[StorageWeakRef, int]]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            storage = leaf.untyped_storage()
            yield StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
