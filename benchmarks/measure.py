"""Time and memory of two computations, measured in turns."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.memory import PeakMemory
from benchmarks.pair import Pair


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a call, its spread as a ratio of quartiles, and the bytes it holds at its peak."""

    milliseconds: float
    spread: float
    peak: int


@dataclass(frozen=True)
class Row:
    """Forward alone and forward with backward, of the snippet and of its twin."""

    forward: tuple[Cost, Cost]
    training: tuple[Cost, Cost]


def compare(pair: Pair, rounds: int) -> Iterator[Row | None]:
    """Yield None after each round, and at last the row."""
    steps = [forward(pair, pair.ours), forward(pair, pair.theirs)]
    steps += [training(pair, pair.ours), training(pair, pair.theirs)]
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for number in range(rounds):
        order = range(len(steps)) if number % 2 else reversed(range(len(steps)))
        for index in order:
            times[index].append(milliseconds(steps[index]))
        yield None
    costs = [cost(measured, peak_bytes(step)) for measured, step in zip(times, steps, strict=True)]
    yield Row((costs[0], costs[1]), (costs[2], costs[3]))


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


def cost(times: list[float], peak: int) -> Cost:
    low, middle, high = statistics.quantiles(times, n=4)
    return Cost(middle, high / low, peak)


def peak_bytes(step: Callable[[], None]) -> int:
    with PeakMemory() as memory:
        step()
    return memory.peak
