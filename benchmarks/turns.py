"""Time and memory of two computations, measured in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes
from benchmarks.pair import Pair


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a call, and the bytes it holds at its peak."""

    milliseconds: float
    peak: int


@dataclass(frozen=True)
class Row:
    """Forward alone and forward with backward, of the snippet and of its twin."""

    forward: tuple[Cost, Cost]
    training: tuple[Cost, Cost]


def compare(pair: Pair, rounds: int, report: Callable[[], object]) -> Row:
    """Measure both sides of a pair in turns; `report` is called after each round."""
    steps = [forward(pair, pair.ours), forward(pair, pair.theirs)]
    steps += [training(pair, pair.ours), training(pair, pair.theirs)]
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for number in range(rounds):
        order = range(len(steps)) if number % 2 else reversed(range(len(steps)))
        for index in order:
            times[index].append(milliseconds(steps[index]))
        report()
    costs = [Cost(statistics.median(t), peak_bytes(step)) for t, step in zip(times, steps, strict=True)]
    return Row((costs[0], costs[1]), (costs[2], costs[3]))


def forward(pair: Pair, run: Callable[..., Tensor]) -> Callable[[], None]:
    """A call without gradients."""

    def step() -> None:
        with torch.no_grad():
            run(*pair.inputs)

    return step


def training(pair: Pair, run: Callable[..., Tensor]) -> Callable[[], None]:
    """A call with gradients of the inputs and of all parameters."""
    inputs = [x.detach().requires_grad_() if x.is_floating_point() else x for x in pair.inputs]

    def step() -> None:
        run(*inputs).square().mean().backward()

    return step


def milliseconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3
