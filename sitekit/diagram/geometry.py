"""The words the layout is written in: boxes, nets, rectangles, lines."""

from collections.abc import Hashable
from dataclasses import dataclass

Key = Hashable
Point = tuple[float, float]

LEVEL = 0.5
"""Positions that differ by less than this are the same (pixels)."""


@dataclass(frozen=True)
class Box:
    """A rectangle to place; `last` says whether it belongs into the last row."""

    key: Key
    width: float = 0.0
    height: float = 0.0
    last: bool = False


@dataclass(frozen=True)
class Net:
    """One value: from the box that makes it to all boxes that read it."""

    source: Key
    targets: tuple[Key, ...]


@dataclass(frozen=True)
class Frame:
    """A border around boxes; what is not of them stands outside.

    Attributes:
        members: the boxes in it.
        width: its least width (pixels).
    """

    members: frozenset[Key]
    width: float = 0.0


@dataclass(frozen=True)
class Lead:
    """The place that a net keeps free in a row it passes."""

    net: int
    row: int


Item = Key | Lead
Rows = list[list[Item]]


@dataclass(frozen=True)
class Rect:
    """A placed box; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Its vertical axis."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width


@dataclass(frozen=True)
class Line:
    """Corners of a line that runs only up-down and left-right, from the box `source`.

    `target` is the box where it ends in an arrow, None where another line goes on.
    """

    source: Key
    points: tuple[Point, ...]
    target: Key | None = None
