"""Which row a box stands in, and the order within the rows: as few crossings as can be found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, permutations, product

from scipy.optimize import linprog

from sitekit.diagram.geometry import Box, Frame, Item, Key, Lead, Net, Rows

MOST_PERMUTED = 5
"""Rows with more items are improved by swapping neighbours only."""
MOST_SPLIT = 4
"""With more long lines than this, not every split of them into left and right is tried."""
EARLY = 1e-3
"""Price of standing a row lower, in rows that a line is longer."""
BREACH = 100
"""Price of a row in which something stands inside a frame it does not belong to, in crossings."""


@dataclass
class Stack:
    """Boxes and the places kept for passing lines, row by row from left to right."""

    boxes: dict[Key, Box]
    nets: list[Net]
    row: dict[Key, int]
    rows: Rows
    frames: list[Frame]

    def __post_init__(self) -> None:
        self._extent = {
            frame.members: (
                min(self.row[key] for key in frame.members),
                max(self.row[key] for key in frame.members),
            )
            for frame in self.frames
        }
        self._ends = {key: frozenset([key]) for key in self.boxes} | {
            item: frozenset([self.nets[item.net].source, *self.nets[item.net].targets])
            for items in self.rows
            for item in items
            if isinstance(item, Lead)
        }

    def extent(self, frame: Frame) -> tuple[int, int]:
        """Return the first and the last row of a frame."""
        return self._extent[frame.members]

    def inside(self, frame: Frame, row: int) -> tuple[int, int]:
        """Return from where to where (not included) the items of a row stand in a frame; (0, 0): none."""
        first, last = self._extent[frame.members]
        if not first <= row <= last:
            return 0, 0
        ends = [self._ends[item] for item in self.rows[row]]
        within = [i for i, own in enumerate(ends) if own <= frame.members]
        within = within or [i for i, own in enumerate(ends) if own & frame.members]
        return (within[0], within[-1] + 1) if within else (0, 0)

    def together(self, one: Item, two: Item) -> bool:
        """Whether two items stand in the same frame."""
        return any({one, two} <= frame.members for frame in self.frames)

    def is_left(self, one: Frame, two: Frame) -> bool:
        """Whether a frame stands left of another in a row."""
        places = [(self.inside(one, row), self.inside(two, row)) for row in range(len(self.rows))]
        return any(first[0] < first[1] <= second[0] < second[1] for first, second in places)

    def _breached(self, row: int) -> int:
        """Count the items that stand in a frame they have nothing to do with."""
        return sum(
            not self._ends[item] & frame.members
            for frame in self.frames
            for item in self.rows[row][slice(*self.inside(frame, row))]
        )

    def _torn(self, upper: int) -> int:
        """Count what changes sides of a frame between two rows: lines, and other frames."""
        if not self.frames:
            return 0
        lines = [(start, end) for _, start, end in self.segments(upper)]
        others = [
            (self.rows[upper][above], self.rows[upper + 1][below])
            for frame in self.frames
            for (above, a), (below, b) in [(self.inside(frame, upper), self.inside(frame, upper + 1))]
            if above < a and below < b
        ]
        return sum(
            self._side(frame, upper, one) * self._side(frame, upper + 1, two) < 0
            for frame in self.frames
            for one, two in [*lines, *others]
        )

    def _side(self, frame: Frame, row: int, item: Item) -> int:
        first, end = self.inside(frame, row)
        place = self.rows[row].index(item)
        return 0 if first == end or first <= place < end else -1 if place < first else 1

    def segments(self, upper: int) -> Iterator[tuple[int, Item, Item]]:
        """Yield (net, item in row `upper`, item in the next row) of the lines between these rows."""
        for number, net in enumerate(self.nets):
            starts = self.row[net.source] == upper
            start: Item = net.source if starts else Lead(number, upper)
            if start not in self.rows[upper]:
                continue
            if Lead(number, upper + 1) in self.rows[upper + 1]:
                yield number, start, Lead(number, upper + 1)
            for end in net.targets:
                if self.row[end] == upper + 1 and not self.beside(number, end):
                    yield number, start, end

    def beside(self, net: int, key: Key) -> bool:
        """Whether a long line stands next to its target, which it then enters from the side."""
        items, lead = self.rows[self.row[key]], Lead(net, self.row[key])
        near = self.row[key] - self.row[self.nets[net].source] == 1
        return not near and lead in items and abs(items.index(lead) - items.index(key)) == 1

    def cost(self, uppers: Iterable[int]) -> int:
        """Crossings below these rows, lines that could have entered from the side, and breached frames."""
        return sum(
            self._crossings(upper)
            + self._idle(upper + 1)
            + BREACH * (self._breached(upper) + self._breached(upper + 1) + self._torn(upper))
            for upper in uppers
        )

    def _crossings(self, upper: int) -> int:
        ends = [
            (net, self._position(start, self.nets[net].source), self._position(end, end))
            for net, start, end in self.segments(upper)
        ]
        pairs = combinations(ends, 2)
        return sum(one[0] != two[0] and (one[1] - two[1]) * (one[2] - two[2]) < 0 for one, two in pairs)

    def _position(self, item: Item, key: Key) -> float:
        row = item.row if isinstance(item, Lead) else self.row[key]
        return float(self.rows[row].index(item))

    def _idle(self, row: int) -> int:
        return sum(self.is_idle(item) for item in self.rows[row])

    def is_idle(self, item: Item) -> bool:
        """Whether a long line reaches into the row of its last target without standing next to it."""
        if not isinstance(item, Lead):
            return False
        ends = self.nets[item.net].targets
        if max(self.row[key] for key in ends) > item.row:
            return False
        return not any(self.row[key] == item.row and self.beside(item.net, key) for key in ends)


def stacks(boxes: list[Box], nets: list[Net], frames: list[Frame]) -> list[Stack]:
    """Return the stacks with the fewest crossings, first those with long lines at the right.

    The order of `boxes` must follow the arrows.
    """
    row = _assign(boxes, nets)
    leads = [lead for number, net in enumerate(nets) for lead in _leads(number, net, row)]
    long = sorted({lead.net for lead in leads})
    splits = product((True, False), repeat=len(long)) if len(long) <= MOST_SPLIT else [(True,) * len(long)]
    found = []
    for split in splits:
        right = dict(zip(long, split, strict=True))
        rows: Rows = [[] for _ in range(max(row.values()) + 1)]
        for lead in leads:
            if not right[lead.net]:
                rows[lead.row].append(lead)
        for box in boxes:
            rows[row[box.key]].append(box.key)
        for lead in reversed(leads):
            if right[lead.net]:
                rows[lead.row].append(lead)
        found.append(_improved(Stack({box.key: box for box in boxes}, nets, row, rows, frames)))
    costs = [stack.cost(range(len(stack.rows) - 1)) for stack in found]
    best = [stack for stack, cost in zip(found, costs, strict=True) if cost == min(costs)]
    for stack in best:
        stack.rows = [[item for item in items if not stack.is_idle(item)] for items in stack.rows]
    return best


def _assign(boxes: list[Box], nets: list[Net]) -> dict[Key, int]:
    """Return the row of each box, below all it reads, so that the lines are as short as can be."""
    column = {box.key: i for i, box in enumerate(boxes)}
    price, conditions = [EARLY] * len(boxes), []
    for net in nets:
        for end in net.targets:
            above, below = column[net.source], column[end]
            price[above] -= 1
            price[below] += 1
            conditions.append([(i == above) - (i == below) for i in range(len(boxes))])
    found = linprog(price, A_ub=conditions or None, b_ub=[-1] * len(conditions) or None, method="highs")
    row = {box.key: round(found.x[i]) for i, box in enumerate(boxes)}
    lowest = max(row.values())
    return {box.key: lowest if box.last else row[box.key] for box in boxes}


def _leads(number: int, net: Net, row: dict[Key, int]) -> list[Lead]:
    """Return the rows that a net passes, with that of its last target, which it may enter from the side."""
    first, last = row[net.source], max(row[end] for end in net.targets)
    return [Lead(number, passed) for passed in range(first + 1, last + (last - first > 1))]


def _improved(stack: Stack) -> Stack:
    """Reorder one row at a time while that lowers the cost."""
    better = True
    while better:
        better = False
        for number, items in enumerate(stack.rows):
            near = [upper for upper in (number - 1, number) if 0 <= upper < len(stack.rows) - 1]
            best, order = stack.cost(near), items
            for other in _reorderings(items):
                stack.rows[number] = other
                if (cost := stack.cost(near)) < best:
                    best, order, better = cost, other, True
            stack.rows[number] = order
    return stack


def _reorderings(items: list[Item]) -> Iterator[list[Item]]:
    if len(items) <= MOST_PERMUTED:
        yield from map(list, permutations(items))
        return
    for i in range(len(items) - 1):
        yield [*items[:i], items[i + 1], items[i], *items[i + 2 :]]
