"""Lines between placed boxes: down, sideways between two rows, down again; rounded later."""

from itertools import combinations, pairwise, permutations

from sitekit.diagram.geometry import LEVEL, Item, Key, Lead, Line, Point, Rect
from sitekit.diagram.rows import Stack

ROW_GAP, TRACK, FALL = 28.0, 9.0, 11.0
"""Between rows; more for each further horizontal line between them; above the first of these (pixels)."""
PORT, CORNER = 16.0, 12.0
"""Between two arrows into one box from above; between such an arrow and the box's corner (pixels)."""
HEAD, SOLE = 28.0, 9.0
"""From the upper border of a frame to its first row; from its last row to the lower border (pixels)."""
MOST_TRIED = 5
"""With more horizontal lines between two rows their order is left as it is."""


class Gap:
    """The space between two rows and the lines in it, each a (net, item above, x, item below, x)."""

    def __init__(self, stack: Stack, upper: int, middle: dict[Item, float]) -> None:
        found = list(stack.segments(upper))
        self.lines: list[tuple[int, Item, float, Item, float]] = []
        for end in dict.fromkeys(end for _, _, end in found):
            into = sorted(((middle[start], net, start) for net, start, other in found if other == end),
                          key=lambda one: one[:2])  # fmt: skip
            for (x, net, start), entry in zip(into, _entries(stack, end, into, middle), strict=True):
                self.lines.append((net, start, x, end, entry))
        self.spans = self._spans()
        self.level = _levels(self.spans)
        extents = [stack.extent(frame) for frame in stack.frames]
        self.sole = SOLE * any(last == upper for _, last in extents)
        head = HEAD * any(first == upper + 1 for first, _ in extents)
        self.height = self.sole + ROW_GAP + TRACK * max(self.level.values(), default=0) + head

    def _spans(self) -> dict[int, tuple[float, tuple[float, ...]]]:
        """Start and ends of each net that has to move sideways."""
        spans: dict[int, tuple[float, tuple[float, ...]]] = {}
        for net, _, x, _, entry in self.lines:
            spans[net] = (x, (*spans.get(net, (x, ()))[1], entry))
        return {net: (x, ends) for net, (x, ends) in spans.items() if any(abs(e - x) > LEVEL for e in ends)}

    def points(self, net: int, x: float, entry: float, top: Point, bottom: float) -> tuple[Point, ...]:
        """Return the corners of one line; `top` is (y of its start, y of the gap)."""
        start, gap = top
        if abs(x - entry) <= LEVEL:
            return (entry, start), (entry, bottom)
        track = gap + self.sole + FALL + TRACK * self.level[net]
        return (x, start), (x, track), (entry, track), (entry, bottom)


def _entries(
    stack: Stack, end: Item, into: list[tuple[float, int, Item]], middle: dict[Item, float]
) -> list[float]:
    """Return where lines from the given x, in order, enter an item from above."""
    if isinstance(end, Lead):
        return [middle[end]]
    if len(into) == 1:
        return [middle[end]]
    reach = stack.boxes[end].width / 2 - CORNER
    if all(abs(x - middle[end]) <= reach for x, _, _ in into) and all(
        two[0] - one[0] >= PORT for one, two in pairwise(into)
    ):
        return [x for x, _, _ in into]
    step = min(PORT, 2 * reach / (len(into) - 1))
    above = [i for i, (x, _, _) in enumerate(into) if abs(x - middle[end]) <= LEVEL]
    centre = above[0] if above else (len(into) - 1) / 2
    return [middle[end] + (i - centre) * step for i in range(len(into))]


def _levels(spans: dict[int, tuple[float, tuple[float, ...]]]) -> dict[int, int]:
    """Return at which height each net moves sideways, so that lines cross least and never coincide."""
    nets = list(spans)
    orders = permutations(nets) if len(nets) <= MOST_TRIED else [tuple(nets)]
    tried = [_stack(order, spans) for order in orders]
    return min(tried, key=lambda level: (_conflicts(level, spans), max(level.values(), default=0)))


def _stack(order: tuple[int, ...], spans: dict[int, tuple[float, tuple[float, ...]]]) -> dict[int, int]:
    level: dict[int, int] = {}
    for net in order:
        left, right = _extent(spans[net])
        others = [_extent(spans[other]) for other in level]
        meets = [a < right + PORT / 2 and left < b + PORT / 2 for a, b in others]
        level[net] = max(
            (high + 1 for high, meet in zip(level.values(), meets, strict=True) if meet), default=0
        )
    return level


def _extent(span: tuple[float, tuple[float, ...]]) -> tuple[float, float]:
    return min(span[0], *span[1]), max(span[0], *span[1])


def _conflicts(level: dict[int, int], spans: dict[int, tuple[float, tuple[float, ...]]]) -> int:
    """Crossings in the gap; lines on top of each other count as ten."""
    total = 0
    for one, two in combinations(spans, 2):
        high, low = sorted((one, two), key=lambda net: level[net])
        if level[high] == level[low]:
            continue
        left, right = _extent(spans[low])
        total += sum(left < x < right for x in spans[high][1])
        left, right = _extent(spans[high])
        total += left < spans[low][0] < right
        total += 10 * any(abs(spans[low][0] - x) <= LEVEL for x in spans[high][1])
    return total


def lines(
    stack: Stack,
    gaps: list[Gap],
    middle: dict[Item, float],
    rects: dict[Key, Rect],
    tops: list[tuple[float, float]],
) -> list[Line]:
    """Return all lines; `tops` holds the upper and lower edge of each row."""
    found: list[Line] = []
    for upper, gap in enumerate(gaps):
        for net, start, x, end, entry in gap.lines:
            begin = tops[upper][0] if isinstance(start, Lead) else rects[start].bottom
            stop = tops[upper + 1][0] if isinstance(end, Lead) else rects[end].y
            points = gap.points(net, x, entry, (begin, tops[upper][1]), stop)
            found.append(Line(stack.nets[net].source, points, None if isinstance(end, Lead) else end))
    for row, items in enumerate(stack.rows):
        for item in items:
            if not isinstance(item, Lead):
                continue
            for target in stack.nets[item.net].targets:
                if stack.row[target] == row and stack.beside(item.net, target):
                    rect, x = rects[target], middle[item]
                    height = rect.y + rect.height / 2
                    edge = rect.x if x < rect.x else rect.right
                    corners = ((x, tops[row][0]), (x, height), (edge, height))
                    found.append(Line(stack.nets[item.net].source, corners, target))
    return found
