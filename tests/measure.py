"""What a proof measures: asserts it, and keeps figure and limit for `docs/proofs.json`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DIFFERENCE = "max |Δ|"
GRADIENT_DIFFERENCE = "max |Δ∇|"


@dataclass(frozen=True)
class Limit:
    """What a figure must keep: a bound, two, or a value and how far from it the figure may be.

    >>> [str(Limit(at_most=1e-10)), str(Limit(above=0.1)), str(Limit(above=3.9, below=4.1))]
    ['≤ 1e-10', '> 0.1', '> 3.9, < 4.1']
    >>> [str(Limit(equals=28088024)), str(Limit(equals=0.7, within=0.01))]
    ['= 28,088,024', '= 0.7 ± 0.01']
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    equals: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        bounded = any(b is not None for b in (self.above, self.at_least, self.below, self.at_most))
        if bounded is (self.equals is not None) or (self.within is not None and self.equals is None):
            raise ValueError("a limit is one or two bounds, or equals, or equals and within")

    def kept(self, figure: float) -> bool:
        """Whether a figure keeps the limit; NaN keeps none."""
        return (
            (self.above is None or figure > self.above)
            and (self.at_least is None or figure >= self.at_least)
            and (self.below is None or figure < self.below)
            and (self.at_most is None or figure <= self.at_most)
            and (self.equals is None or abs(figure - self.equals) <= (self.within or 0))
        )

    def __str__(self) -> str:
        if self.equals is not None:
            return f"= {number(self.equals)}" + (f" ± {number(self.within)}" if self.within else "")
        bounds = (("> ", self.above), ("≥ ", self.at_least), ("< ", self.below), ("≤ ", self.at_most))
        return ", ".join(sign + number(bound) for sign, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Figure:
    """One number that a proof measured, and the limit it kept; a count has no name."""

    name: str
    value: float
    limit: Limit


class Measured:
    """Collects the figures of one proof; each method asserts before it records."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def close(self, actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
        """Assert equal shapes and max |actual - expected| <= tolerance; record the difference."""
        assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} is not {tuple(expected.shape)}"
        self.value(DIFFERENCE, (actual - expected).abs().max().item(), at_most=tolerance)

    def gradients(
        self, actual: Tensor, expected: Tensor, of: Sequence[Tensor], tolerance: float = 1e-10
    ) -> None:
        """Assert that two outputs have the same gradient in every tensor of `of`; record the difference."""
        cotangent = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
        pairs = zip(
            torch.autograd.grad(actual, of, cotangent, retain_graph=True),
            torch.autograd.grad(expected, of, cotangent, retain_graph=True),
            strict=True,
        )
        # Not max(...) of Python, which forgets a NaN that is not the first
        difference = torch.stack([(a - e).abs().max() for a, e in pairs]).max().item()
        self.value(GRADIENT_DIFFERENCE, difference, at_most=tolerance)

    def count(self, actual: int, expected: int) -> None:
        """Assert that two counts are equal; record the count."""
        self.value("", actual, equals=expected)

    def value(
        self,
        name: str,
        actual: float,
        *,
        above: float | None = None,
        at_least: float | None = None,
        below: float | None = None,
        at_most: float | None = None,
        equals: float | None = None,
        within: float | None = None,
    ) -> None:
        """Assert that `actual` keeps the limit; record `name = actual` with it.

        >>> Measured().value("growth", 4.0, above=3.9, below=4.1)
        >>> Measured().value("share", 0.704, equals=0.7, within=0.01)
        >>> Measured().value("change", 0.05, above=0.1)
        Traceback (most recent call last):
        AssertionError: change = 0.05 is not > 0.1
        """
        limit = Limit(above, at_least, below, at_most, equals, within)
        assert limit.kept(actual), f"{name or 'count'} = {number(actual, 6)} is not {limit}"
        self.figures.append(Figure(name, actual, limit))


def number(value: float, digits: int = 3) -> str:
    """Write a number as the page shows it: counts in full, others with few digits.

    >>> [number(value) for value in (28088024, 0, 2.22e-16, 0.13534, 8.2, 441.0)]
    ['28,088,024', '0', '2.2e-16', '0.135', '8.2', '441']
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 else f"{value:.{digits - 1}g}"


def summary(figures: Iterable[Figure]) -> list[dict[str, str]]:
    """Say what the runs of a proof measured: a line for each name and limit, with the range of the figures.

    Of differences only the largest matters; counts of several networks share a line.

    >>> runs = [Figure("max |Δ|", gap, Limit(at_most=1e-10)) for gap in (1e-16, 3e-16)]
    >>> runs += [Figure("", count, Limit(equals=count)) for count in (75, 3001000)]
    >>> runs += [Figure("ratio", ratio, Limit(above=0.2)) for ratio in (0.5, 2)]
    >>> for line in summary(runs):
    ...     print(*line.values(), sep=" | ")
    max |Δ| | 3e-16 | ≤ 1e-10
     | 75; 3,001,000 | = 75; 3,001,000
    ratio | 0.5 … 2 | > 0.2
    """
    lines: dict[tuple[str, Limit | None], list[Figure]] = {}
    for figure in figures:
        exact = figure.limit.equals is not None and not figure.limit.within
        lines.setdefault((figure.name, None if exact else figure.limit), []).append(figure)
    return [_line(found) for found in lines.values()]


def _line(found: list[Figure]) -> dict[str, str]:
    first, values = found[0], [figure.value for figure in found]
    limits = dict.fromkeys(str(figure.limit) for figure in found)
    if len(limits) > 1 or not first.name:
        measured = "; ".join(dict.fromkeys(number(value) for value in values))
    elif first.name in (DIFFERENCE, GRADIENT_DIFFERENCE) and first.limit.at_most is not None:
        measured = number(max(values))
    else:
        measured = " … ".join(dict.fromkeys((number(min(values)), number(max(values)))))
    limit = (
        "= " + "; ".join(text.removeprefix("= ") for text in limits)
        if len(limits) > 1
        else next(iter(limits))
    )
    return {"name": first.name, "measured": measured, "limit": limit}
