"""Which row a box stands in, and the order within the rows: as few crossings as can be found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, permutations, product

from sitekit.diagram.geometry import Box, Item, Key, Lead, Net, Rows

MOST_PERMUTED = 5
"""Rows with more items are improved by swapping neighbours only."""
MOST_SPLIT = 4
"""With more long lines than this, not every split of them into left and right is tried."""


@dataclass
class Stack:
    """Boxes and the places kept for passing lines, row by row from left to right."""

    boxes: dict[Key, Box]
    nets: list[Net]
    row: dict[Key, int]
    rows: Rows

    def segments(self, upper: int) -> Iterator[tuple[int, Item, Item]]:
        """Yield (net, item in row `upper`, item in the next row) of the lines between these rows."""
        for number, net in enumerate(self.nets):
            starts = self.row[net.source.key] == upper
            start: Item = net.source.key if starts else Lead(number, upper)
            if start not in self.rows[upper]:
                continue
            if Lead(number, upper + 1) in self.rows[upper + 1]:
                yield number, start, Lead(number, upper + 1)
            for end in net.targets:
                if self.row[end.key] == upper + 1 and not self.beside(number, end.key):
                    yield number, start, end.key

    def beside(self, net: int, key: Key) -> bool:
        """Whether a long line stands next to its target, which it then enters from the side."""
        items, lead = self.rows[self.row[key]], Lead(net, self.row[key])
        near = self.boxes[key].frame or self.row[key] - self.row[self.nets[net].source.key] == 1
        return not near and lead in items and abs(items.index(lead) - items.index(key)) == 1

    def cost(self, uppers: Iterable[int]) -> int:
        """Crossings below these rows and lines that could have entered from the side."""
        return sum(self._crossings(upper) + self._idle(upper + 1) for upper in uppers)

    def _crossings(self, upper: int) -> int:
        ends = [
            (net, self._position(start, self.nets[net].source.key), self._position(end, end))
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
        ends = [end.key for end in self.nets[item.net].targets]
        if max(self.row[key] for key in ends) > item.row:
            return False
        return not any(self.row[key] == item.row and self.beside(item.net, key) for key in ends)


def stacks(boxes: list[Box], nets: list[Net]) -> list[Stack]:
    """Return the stacks with the fewest crossings, first those with long lines at the right.

    The order of `boxes` must follow the arrows.
    """
    row = _assign(boxes, nets)
    leads = [lead for number, net in enumerate(nets) for lead in _leads(number, net, row, boxes)]
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
        found.append(_improved(Stack({box.key: box for box in boxes}, nets, row, rows)))
    costs = [stack.cost(range(len(stack.rows) - 1)) for stack in found]
    best = [stack for stack, cost in zip(found, costs, strict=True) if cost == min(costs)]
    for stack in best:
        stack.rows = [[item for item in items if not stack.is_idle(item)] for items in stack.rows]
    return best


def _assign(boxes: list[Box], nets: list[Net]) -> dict[Key, int]:
    """Return the row of each box: one below the lowest box it reads."""
    row: dict[Key, int] = {}
    for box in boxes:
        above = [row[net.source.key] + 1 for net in nets if any(end.key == box.key for end in net.targets)]
        row[box.key] = max(above, default=0)
    lowest = max(row.values())
    return {box.key: lowest if box.last else row[box.key] for box in boxes}


def _leads(number: int, net: Net, row: dict[Key, int], boxes: list[Box]) -> list[Lead]:
    """Return the rows that a net passes, with the row of its last target if it can enter from the side."""
    frames = {box.key for box in boxes if box.frame}
    first, last = row[net.source.key], max(row[end.key] for end in net.targets)
    sideways = last - first > 1 and any(row[end.key] == last and end.key not in frames for end in net.targets)
    return [Lead(number, passed) for passed in range(first + 1, last + sideways)]


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
