"""Runs a function in several processes of torch.distributed and collects what each returns."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def spread(function: Callable[[], Any], size: int) -> list[Any]:
    """Return what the function returns in each of `size` processes, by rank; gloo connects them."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run, (function, size, folder), nprocs=size)
        return [torch.load(Path(folder, str(rank))) for rank in range(size)]


def _run(rank: int, function: Callable[[], Any], size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save(function(), Path(folder, str(rank)))
    dist.destroy_process_group()
