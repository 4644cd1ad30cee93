"""Where the items of each row stand: the least sideways movement of all lines, as a linear programme."""

from collections import Counter
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog

from sitekit.diagram.geometry import Frame, Item, Lead
from sitekit.diagram.rows import Stack

BOX_GAP, LEAD_GAP, ENTRY_GAP = 16.0, 13.0, 22.0
"""Between two boxes; beside a passing line; between a line and the box it enters from the side (pixels)."""
INNER, OUTER = 9.0, 8.0
"""From the border of a frame to what is in it; to what is beside it (pixels)."""
STRAIGHT, SPINE, BRANCH, BEND = 8.0, 4.0, 1.0, 0.5
"""Price of a pixel sideways: along a passing line; between two boxes of one frame, or that share no line
with others between these rows; between other boxes; where a passing line starts or ends."""
CENTRED, NARROW = 0.05, 0.2
"""Price of a pixel off the mean of several inputs or outputs, and of a pixel of total width."""


def middles(stack: Stack) -> tuple[dict[Item, float], list[tuple[float, float]], float, float]:
    """Return the middle of each item, left and right of each frame, the total width, and the price paid."""
    items = [item for row in stack.rows for item in row]
    column = {item: i for i, item in enumerate(items)}
    total = len(items)
    borders = [(total + 2 * i + 1, total + 2 * i + 2) for i in range(len(stack.frames))]
    programme = _Programme(total + 2 * len(borders) + 1)
    programme.price[total] = NARROW
    for row in stack.rows:
        for item in row:
            programme.at_least({column[item]: 1.0}, _width(stack, item) / 2)
            programme.at_least({total: 1.0, column[item]: -1.0}, _width(stack, item) / 2)
        for left, right in pairwise(row):
            room = (_width(stack, left) + _width(stack, right)) / 2 + _gap(stack, left, right)
            programme.at_least({column[right]: 1.0, column[left]: -1.0}, room)
    for frame, (left_border, right_border) in zip(stack.frames, borders, strict=True):
        _enclose(programme, stack, frame, (left_border, right_border), column)
        programme.at_least({total: 1.0, right_border: -1.0}, 0.0)
        for other, (far_left, _) in zip(stack.frames, borders, strict=True):
            if stack.is_left(frame, other):
                programme.at_least({far_left: 1.0, right_border: -1.0}, OUTER)
    forks: dict[tuple[str, Item], list[int]] = {}
    for upper in range(len(stack.rows) - 1):
        segments = list(stack.segments(upper))
        direct = [one for one in segments if not any(isinstance(item, Lead) for item in one[1:])]
        used = Counter(item for _, *pair in direct for item in pair)
        for _, start, end in segments:
            alone = used[start] == used[end] == 1
            spine = alone or stack.together(start, end)
            price = {2: STRAIGHT, 1: BEND, 0: SPINE if spine else BRANCH}[
                isinstance(start, Lead) + isinstance(end, Lead)
            ]
            programme.near({column[start]: 1.0, column[end]: -1.0}, price)
            forks.setdefault(("into", end), []).append(column[start])
            if not isinstance(end, Lead):
                forks.setdefault(("out of", start), []).append(column[end])
    for (_, item), others in forks.items():
        if len(others) > 1:
            weights = {column[item]: -1.0}
            for near in others:
                weights[near] = weights.get(near, 0.0) + 1 / len(others)
            programme.near(weights, CENTRED)
    values, price = programme.solve()
    edges = [(values[left], values[right]) for left, right in borders]
    return {item: values[i] for item, i in column.items()}, edges, values[total], price


def _enclose(
    programme: "_Programme", stack: Stack, frame: Frame, borders: tuple[int, int], column: dict[Item, int]
) -> None:
    """Demand that the borders are around what stands in a frame and keep off all else in its rows."""
    left, right = borders
    programme.at_least({right: 1.0, left: -1.0}, frame.width)
    programme.price[right] += NARROW
    for number, row in enumerate(stack.rows):
        first, last = stack.inside(frame, number)
        for place, item in enumerate(row):
            half = _width(stack, item) / 2
            if first <= place < last:
                programme.at_least({column[item]: 1.0, left: -1.0}, half + INNER)
                programme.at_least({right: 1.0, column[item]: -1.0}, half + INNER)
            elif place < first:
                programme.at_least({left: 1.0, column[item]: -1.0}, half + OUTER)
            elif last:
                programme.at_least({column[item]: 1.0, right: -1.0}, half + OUTER)


def _width(stack: Stack, item: Item) -> float:
    return 0.0 if isinstance(item, Lead) else stack.boxes[item].width


def _gap(stack: Stack, left: Item, right: Item) -> float:
    leads = isinstance(left, Lead) + isinstance(right, Lead)
    if leads == 0:
        return BOX_GAP
    lead, box = (left, right) if isinstance(left, Lead) else (right, left)
    enters = leads == 1 and isinstance(lead, Lead) and _enters(stack, lead, box)
    return ENTRY_GAP if enters else LEAD_GAP


def _enters(stack: Stack, lead: Lead, box: Item) -> bool:
    return box in stack.nets[lead.net].targets and stack.beside(lead.net, box)


class _Programme:
    """Minimise a sum of prices under linear conditions; all variables are at least 0."""

    def __init__(self, variables: int) -> None:
        self.price = [0.0] * variables
        self.conditions: list[tuple[dict[int, float], float]] = []

    def at_least(self, weights: dict[int, float], bound: float) -> None:
        """Demand that the weighted sum is not below `bound`."""
        self.conditions.append((weights, bound))

    def near(self, weights: dict[int, float], price: float) -> None:
        """Pay `price` for each unit between the weighted sum and zero."""
        self.price.append(price)
        distance = len(self.price) - 1
        self.at_least({distance: 1.0, **weights}, 0.0)
        self.at_least({distance: 1.0, **{i: -weight for i, weight in weights.items()}}, 0.0)

    def solve(self) -> tuple[list[float], float]:
        """Return the variables and the price."""
        matrix = np.zeros((len(self.conditions), len(self.price)))
        for line, (weights, _) in enumerate(self.conditions):
            for variable, weight in weights.items():
                matrix[line, variable] = -weight
        bounds = [-bound for _, bound in self.conditions]
        found = linprog(self.price, A_ub=matrix, b_ub=bounds, method="highs")
        return [float(value) for value in found.x], float(found.fun)
