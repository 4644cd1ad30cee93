"""How much memory a computation needs, counted tensor by tensor, and what freed memory costs."""

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Follows the bytes of all tensors that are alive, and keeps the largest sum in `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def peak_bytes(run: Callable[..., object], *inputs: Tensor) -> int:
    """Largest number of bytes alive at a time while `run` handles `inputs`, theirs not counted."""
    memory = PeakMemory()
    with memory:
        run(*inputs)
    return memory.peak


def keep_freed_memory() -> None:
    """Use freed memory again, as the allocator of a GPU does; with glibc, elsewhere without effect.

    Otherwise a tensor of more than 32 MB is new memory in each call, and clearing it takes longer than the
    block: an exponent of 3 where 2 is true.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # the numbers of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)
