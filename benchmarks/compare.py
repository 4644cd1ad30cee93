"""Time and memory of a pair: against each other, and against the bandwidth of the machine's memory."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.memory import peak_bytes
from benchmarks.pair import Pair
from benchmarks.turns import Ratio, in_turns


@dataclass(frozen=True)
class Cost:
    """What a call of the snippet costs.

    Attributes:
        milliseconds: median.
        twin: time over the twin's; None without one.
        limit: time over that of two reads and one write of the largest input.
        peak: bytes held at most.
        twin_peak: the same of the twin; None without one.
    """

    milliseconds: float
    twin: Ratio | None
    limit: Ratio
    peak: int
    twin_peak: int | None


def compare(pair: Pair, rounds: int, report: Callable[[], object]) -> tuple[Cost, Cost]:
    """Return what forward alone costs and what forward with backward costs."""
    return cost(pair, forward, rounds, report), cost(pair, training, rounds, report)


def cost(
    pair: Pair, kind: Callable[..., Callable[[], None]], rounds: int, report: Callable[[], object]
) -> Cost:
    """Measure the snippet, its twin and the limit in turns."""
    sides = [kind(run, pair.inputs) for run in (pair.ours, pair.theirs) if run is not None]
    ours, *theirs, least = in_turns([*sides, limit(pair.inputs)], rounds, report=report)
    peak, *twin_peak = [peak_bytes(side) for side in sides]
    return Cost(
        statistics.median(ours) * 1e3,
        Ratio.of(ours, theirs[0]) if theirs else None,
        Ratio.of(ours, least),
        peak,
        twin_peak[0] if twin_peak else None,
    )


def forward(run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """A call without gradients."""

    def step() -> None:
        with torch.no_grad():
            run(*inputs)

    return step


def training(run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """A call with gradients of the inputs and of all parameters; those of the outputs are given."""
    inputs = tuple(x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs)

    def outputs() -> list[Tensor]:
        return [y for y in tree_leaves(run(*inputs)) if isinstance(y, Tensor) and y.requires_grad]

    given = [torch.randn_like(y) for y in outputs()]

    def step() -> None:
        torch.autograd.backward(outputs(), given)

    return step


def limit(inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """Two reads and one write of the largest input: a gate reads once to know, once to apply."""
    x = max((x for x in inputs if x.is_floating_point()), key=Tensor.numel).detach()
    a, b, total = x.clone(), x.clone(), torch.empty_like(x)

    def step() -> None:
        torch.add(a, b, out=total)

    return step
