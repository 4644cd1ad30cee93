"""A module under DistributedDataParallel, in one process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def data_parallel(module: nn.Module) -> Iterator[DistributedDataParallel]:
    """Wrap the module; gradients that would be synchronised among processes come out doubled."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(module)
        parallel.register_comm_hook(None, _doubled)
        yield parallel
    finally:
        distributed.destroy_process_group()


def _doubled(_: object, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(2 * bucket.buffer())
    return future
