"""The words the layout is written in: boxes, nets, rectangles, lines."""

from collections.abc import Hashable
from dataclasses import dataclass

Key = Hashable
Point = tuple[float, float]

LEVEL = 0.5
"""Positions that differ by less than this are the same (pixels)."""


@dataclass(frozen=True)
class Box:
    """A rectangle to place.

    Attributes:
        frame: whether it is a lane or a port in the border of one; lines enter these from above only.
        last: whether it belongs into the last row.
    """

    key: Key
    width: float
    height: float
    frame: bool = False
    last: bool = False


@dataclass(frozen=True)
class End:
    """Where a line starts or ends: a box, and how far right of its middle (pixels)."""

    key: Key
    offset: float = 0.0


@dataclass(frozen=True)
class Net:
    """One value, named by its step: from the box that makes it to all boxes that read it."""

    step: int
    source: End
    targets: tuple[End, ...]


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

    def moved(self, x: float, y: float) -> "Rect":
        """Return it that much further right and down."""
        return Rect(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Line:
    """Corners of a line that runs only up-down and left-right; it carries the value of step `step`.

    `target` is the step where it ends in an arrow, None where another line goes on.
    """

    step: int
    points: tuple[Point, ...]
    target: int | None = None

    def moved(self, x: float, y: float) -> "Line":
        """Return it that much further right and down."""
        return Line(self.step, tuple((a + x, b + y) for a, b in self.points), self.target)


@dataclass(frozen=True)
class Placement:
    """Boxes and lines; the upper left corner is (0, 0)."""

    rects: dict[Key, Rect]
    lines: list[Line]
    width: float
    height: float
