"""Sizes back to the symbols of the mechanism's formulas: 64 -> C, 140 -> N, 4 -> C/r."""

import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from types import ModuleType

RATIOS = {"r", "reduction", "ratio"}
"""Symbols that divide a size and are never one themselves."""


COUNTS = {"G", "K", "M"}
"""Capital letters that count parts, and so may divide a size; small letters may, too."""


def example_sizes(module: ModuleType) -> dict[str, int]:
    """Return the symbols of a snippet, the keyword arguments of `example`, and their defaults."""
    return {name: argument.default for name, argument in inspect.signature(module.example).parameters.items()}


class Names:
    """The symbols of one example."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = {symbol: size for symbol, size in sizes.items() if type(size) is int and size > 0}
        self.batch = self.sizes.get("B")
        self.axis = {symbol: size for symbol, size in self.sizes.items() if symbol not in RATIOS | {"B"}}
        if {"H", "W"} <= self.axis.keys() and "N" not in self.axis:
            self.axis["N"] = self.axis["H"] * self.axis["W"]

    def shape(self, shape: Sequence[int]) -> str:
        """Return the shape in symbols. Only the first axis of size B is the batch."""
        return "(" + ", ".join(self.axes(shape)) + ")"

    def axes(self, shape: Sequence[int]) -> list[str]:
        """Return the name of each axis. The batch may be merged with what comes after it, as in B·heads."""
        merged = (
            {self.batch * size: f"B·{symbol}" for symbol, size in self.axis.items()} if self.batch else {}
        )
        if shape and shape[0] in merged and shape[0] not in self.axis.values():
            return [merged[shape[0]], *map(self.size, shape[1:])]
        batch = next((axis for axis, size in enumerate(shape) if size == self.batch), None)
        return ["B" if axis == batch else self.size(size) for axis, size in enumerate(shape)]

    def size(self, size: int) -> str:
        """Return the plainest expression of this size, or the number."""
        return self._known.get(size, str(size))

    def note(self, shapes: Sequence[str]) -> str | None:
        """Return what N stands for if one of these shapes uses it."""
        used = any(re.search(r"(?<![A-Za-z])N(?![A-Za-z])", text) for text in shapes)
        return "N = HW" if used and "N" not in self.sizes else None

    @cached_property
    def _known(self) -> dict[int, str]:
        known = {1: "1"}
        for size, text in self._expressions():
            known.setdefault(size, text)
        return known

    def _expressions(self) -> Iterator[tuple[int, str]]:
        """Size and text of every expression in use, the plainest first."""
        wide = {symbol: size for symbol, size in self.axis.items() if symbol[0].isupper()}
        parts = {symbol: size for symbol, size in self.sizes.items() if symbol.islower() or symbol in COUNTS}
        for symbol, size in self.axis.items():
            yield size, symbol
        for divisor, by in {**parts, "2": 2, "4": 4, "8": 8}.items():
            for symbol, size in wide.items():
                if divisor != symbol and size % by == 0 and size // by > 3:
                    yield size // by, f"{symbol}/{divisor}"
        for factor in (2, 3, 4, 5):
            for symbol, size in wide.items():
                yield factor * size, f"{factor}{symbol}"
        for (one, size), (other, by) in combinations(self.axis.items(), 2):
            yield size * by, f"{one}·{other}"
        for one, other in combinations(wide, 2):
            yield wide[one] + wide[other], f"{one}+{other}"
            yield wide[one] + wide[other] - 1, f"{one}+{other}−1"
