"""Which steps are g where `forward` does not call `attention` itself."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sitekit.diagram.functions import ATTENTION
from sitekit.diagram.graph import Step
from sitekit.diagram.layers import MULTI_HEAD


def weights(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Return g(x) if the module has an `attention` that takes arguments of its `forward`, else None."""
    method: Any = getattr(module, "attention", None)
    if method is None or isinstance(method, nn.Module):
        return None
    given = inspect.signature(module.forward).bind(*inputs).arguments
    try:
        wanted = inspect.signature(method).parameters
        result = method(**{name: value for name, value in given.items() if name in wanted})
    except (TypeError, ValueError, RuntimeError):  # other arguments, or the same names for other things
        return None
    return result if isinstance(result, Tensor) else None


def assign(steps: list[Step], results: list[Tensor], g: Tensor | None) -> tuple[list[Step], list[str]]:
    """Return the steps with lanes, and the lanes: what serves g alone, or a kernel that is g and f at once.

    Args:
        steps: all steps; `results` holds the tensor that each returned.
        g: the attention weights, if known.
    """
    same = [index for index, result in enumerate(results) if g is not None and _equal(result, g)]
    if same:
        serving = _serving(steps, same[-1])
        return [replace(step, lane=0) if i in serving else step for i, step in enumerate(steps)], ["g(x)"]
    kernels = [index for index, step in enumerate(steps) if step.label.endswith((ATTENTION, MULTI_HEAD))]
    lanes = {index: lane for lane, index in enumerate(kernels)}
    return [replace(step, lane=lanes.get(i)) for i, step in enumerate(steps)], ["g and f"] * len(kernels)


def _equal(result: Tensor, g: Tensor) -> bool:
    if result.numel() != g.numel() or result.dtype != g.dtype:
        return False
    return result.squeeze().shape == g.squeeze().shape and torch.allclose(result.squeeze(), g.squeeze())


def _serving(steps: list[Step], last: int) -> set[int]:
    """Return `last` and the steps whose every reader is among those returned."""
    found = {last}
    for index in range(last - 1, -1, -1):
        readers = {reader for reader, step in enumerate(steps) if index in step.inputs}
        if readers and readers <= found and steps[index].kind == "step":
            found.add(index)
    return found
