"""Times of several computations, taken in turns, and what the ratios of the turns say."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDE = 0.2  # of the median


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of all turns, and the quartiles around it.

    >>> str(Ratio.of([2, 2, 2, 2], [4, 4, 4, 4]))
    '0.50 (0.50 to 0.50)'
    >>> str(Ratio.of([1, 2, 3, 4], [4, 4, 4, 4]))
    'no verdict (0.44 to 0.81)'
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Ratio":
        """Compare each time with that of the same turn; a single turn has no quartiles but itself."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        if len(ratios) == 1:
            return cls(*ratios * 3)
        return cls(*statistics.quantiles(ratios, n=4, method="inclusive"))

    @property
    def wide(self) -> bool:
        """Whether the turns differ too much to say anything: the quartiles lie apart."""
        return self.high - self.low > WIDE * self.median

    def __str__(self) -> str:
        verdict = "no verdict" if self.wide else f"{self.median:.2f}"
        return f"{verdict} ({self.low:.2f} to {self.high:.2f})"


def in_turns(
    steps: Sequence[Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    report: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Return the seconds of each step in each round, after one call to warm up; `report` ends a round.

    Every second round runs backwards, so that no step always comes after the same one. The time is the
    processor's: with one thread that is the time on a machine at rest.
    """
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds):
        order = range(len(steps))
        for index in order if number % 2 == 0 else reversed(order):
            start = clock()
            steps[index]()
            times[index].append(clock() - start)
        report()
    return times
