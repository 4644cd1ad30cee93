"""Sizes back to the symbols of the mechanism's formulas: 64 -> C, 140 -> N, 4 -> C/r."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations

RATIOS = {"r", "reduction", "ratio"}
"""Symbols that divide a size and are never one themselves."""


class Names:
    """The symbols of one example."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = {symbol: size for symbol, size in sizes.items() if isinstance(size, int)}
        self.batch = self.sizes.get("B")

    def shape(self, shape: Sequence[int]) -> str:
        """Return the shape in symbols. Only the first axis of size B is the batch."""
        return "(" + ", ".join(self.axes(shape)) + ")"

    def axes(self, shape: Sequence[int]) -> list[str]:
        """Return the name of each axis."""
        batch = next((axis for axis, size in enumerate(shape) if size == self.batch), None)
        if batch is not None and self.size(shape[0]).count("B") and shape[0] != self.batch:
            batch = None
        return ["B" if axis == batch else self.size(size) for axis, size in enumerate(shape)]

    def size(self, size: int) -> str:
        """Return the plainest expression of this size, or the number."""
        return self._known.get(size, str(size))

    def note(self, shapes: Sequence[str]) -> str | None:
        """Return what N stands for if one of these shapes uses it."""
        used = (
            any(re.search(r"(?<![A-Za-z])N(?![A-Za-z])", text) for text in shapes) and "N" not in self.sizes
        )
        return "N = HW" if used else None

    @cached_property
    def _known(self) -> dict[int, str]:
        known = {1: "1"}
        for size, text in self._expressions():
            known.setdefault(size, text)
        return known

    def _expressions(self) -> Iterator[tuple[int, str]]:
        """Size and text of every expression in use, the plainest first."""
        axes = {symbol: size for symbol, size in self.sizes.items() if symbol not in RATIOS | {"B"}}
        wide = {symbol: size for symbol, size in axes.items() if symbol[0].isupper()}
        pixels = {"N": axes["H"] * axes["W"]} if {"H", "W"} <= axes.keys() and "N" not in self.sizes else {}
        for symbol, size in {**axes, **pixels}.items():
            yield size, symbol
        for divisor, by in sorted(self.sizes.items(), key=lambda item: item[0].isupper()):
            for symbol, size in wide.items():
                if divisor not in ("B", symbol) and size % by == 0 and size // by > 3:
                    yield size // by, f"{symbol}/{divisor}"
        for factor in (2, 4, 8):
            for symbol, size in {**wide, **pixels}.items():
                if size % factor == 0 and size // factor > 3:
                    yield size // factor, f"{symbol}/{factor}"
        for factor in (2, 3, 4):
            for symbol, size in wide.items():
                yield factor * size, f"{factor}{symbol}"
        for (one, size), (other, by) in combinations({**axes, **pixels}.items(), 2):
            yield size * by, f"{one}·{other}"
        for one, other in combinations(wide, 2):
            yield wide[one] + wide[other], f"{one}+{other}"
            yield wide[one] + wide[other] - 1, f"{one}+{other}−1"
        if self.batch:
            for symbol, size in {**axes, **pixels}.items():
                yield self.batch * size, f"B·{symbol}"
