"""Where everything of a diagram stands: boxes in rows, lines between them, frames around them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sitekit.diagram.columns import middles
from sitekit.diagram.geometry import Box, Frame, Key, Lead, Line, Net, Rect
from sitekit.diagram.graph import Graph
from sitekit.diagram.routes import HEAD, SOLE, Gap, lines
from sitekit.diagram.rows import Stack, stacks

ALIKE = 15.0
"""Boxes of a row that differ by no more than this are drawn equally high (pixels)."""


@dataclass(frozen=True)
class Drawing:
    """Boxes by key, frames in their order, and lines; the upper left corner is (0, 0)."""

    boxes: dict[Key, Rect]
    frames: list[Rect]
    lines: list[Line]
    width: float
    height: float


def orders(graph: Graph) -> list[Stack]:
    """Return the best orders of the steps of a graph in rows; boxes have no size yet, frames no width."""
    boxes = [Box(i, last=step.kind == "output") for i, step in enumerate(graph.steps)]
    readers = [tuple(j for j, step in enumerate(graph.steps) if i in step.inputs) for i in range(len(boxes))]
    nets = [Net(i, targets) for i, targets in enumerate(readers) if targets]
    lanes = [
        frozenset(i for i, step in enumerate(graph.steps) if step.lane == lane)
        for lane in range(len(graph.lanes))
    ]
    return stacks(boxes, nets, [Frame(members) for members in lanes])


def arrange(found: list[Stack], sizes: Sequence[tuple[float, float]], widths: Sequence[float]) -> Drawing:
    """Place the boxes of one of these stacks, that of the lowest price, and draw the lines.

    Args:
        sizes: width and height of each step's box.
        widths: the least width of each lane.
    """
    sized = [
        replace(
            stack,
            boxes={key: replace(box, width=sizes[i][0], height=sizes[i][1])
                   for i, (key, box) in enumerate(stack.boxes.items())},
            frames=[replace(frame, width=width) for frame, width in zip(stack.frames, widths, strict=True)],
        )
        for stack in found
    ]  # fmt: skip
    solved = [(middles(stack), stack) for stack in sized]
    (middle, borders, width, _), stack = min(solved, key=lambda one: round(one[0][3], 3))
    gaps = [Gap(stack, upper, middle) for upper in range(len(stack.rows) - 1)]
    extents = [stack.extent(frame) for frame in stack.frames]
    rects: dict[Key, Rect] = {}
    edges: list[tuple[float, float]] = []
    top = HEAD * any(first == 0 for first, _ in extents)
    for number, items in enumerate(stack.rows):
        row = [stack.boxes[item] for item in items if not isinstance(item, Lead)]
        high = max((box.height for box in row), default=0.0)
        for box in row:
            height = high if high - box.height <= ALIKE else box.height
            y = top + (high - height) / 2
            rects[box.key] = Rect(middle[box.key] - box.width / 2, y, box.width, height)
        edges.append((top, top + high))
        top += high + (gaps[number].height if number < len(gaps) else 0.0)
    frames = [
        Rect(left, edges[first][0] - HEAD, right - left, edges[last][1] + SOLE - edges[first][0] + HEAD)
        for (left, right), (first, last) in zip(borders, extents, strict=True)
    ]
    bottom = max([edges[-1][1], *(frame.bottom for frame in frames)])
    return Drawing(rects, frames, lines(stack, gaps, middle, rects, edges), width, bottom)
