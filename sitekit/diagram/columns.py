"""Where the items of each row stand: the least sideways movement of all lines, as a linear programme."""

from collections import Counter
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog

from sitekit.diagram.geometry import Item, Lead
from sitekit.diagram.rows import Stack

BOX_GAP, LEAD_GAP, ENTRY_GAP = 16.0, 13.0, 22.0
"""Between two boxes; beside a passing line; between a line and the box it enters from the side (pixels)."""
STRAIGHT, SPINE, BRANCH, BEND = 8.0, 4.0, 1.0, 0.5
"""Price of a pixel sideways: along a passing line; between two boxes that share no line
with others between these rows; between other boxes; where a passing line starts or ends."""
CENTRED, NARROW = 0.05, 0.2
"""Price of a pixel off the mean of several inputs or outputs, and of a pixel of total width."""


def middles(stack: Stack) -> tuple[dict[Item, float], float, float]:
    """Return the middle of each item, the total width, and the price paid."""
    items = [item for row in stack.rows for item in row]
    column = {item: i for i, item in enumerate(items)}
    programme = _Programme(len(items) + 1)
    total = len(items)
    programme.price[total] = NARROW
    for row in stack.rows:
        for item in row:
            programme.at_least({column[item]: 1.0}, _width(stack, item) / 2)
            programme.at_least({total: 1.0, column[item]: -1.0}, _width(stack, item) / 2)
        for left, right in pairwise(row):
            room = (_width(stack, left) + _width(stack, right)) / 2 + _gap(stack, left, right)
            programme.at_least({column[right]: 1.0, column[left]: -1.0}, room)
    forks: dict[tuple[str, Item], list[tuple[int, float]]] = {}
    for upper in range(len(stack.rows) - 1):
        segments = list(stack.segments(upper))
        direct = [one for one in segments if not any(isinstance(item, Lead) for item in one[1:])]
        used = Counter(_point(stack, net, item) for net, *pair in direct for item in pair)
        for net, start, end in segments:
            start_offset = 0.0 if isinstance(start, Lead) else stack.nets[net].source.offset
            offsets = {target.key: target.offset for target in stack.nets[net].targets}
            shift = start_offset - (0.0 if isinstance(end, Lead) else offsets[end])
            alone = used[_point(stack, net, start)] == used[_point(stack, net, end)] == 1
            price = {2: STRAIGHT, 1: BEND, 0: SPINE if alone else BRANCH}[
                isinstance(start, Lead) + isinstance(end, Lead)
            ]
            programme.near({column[start]: 1.0, column[end]: -1.0}, -shift, price)
            forks.setdefault(("into", end), []).append((column[start], shift))
            if not isinstance(end, Lead):
                forks.setdefault(("out of", start), []).append((column[end], -shift))
    for (_, item), others in forks.items():
        if len(others) > 1:
            weights = {column[item]: -1.0}
            for other, _ in others:
                weights[other] = weights.get(other, 0.0) + 1 / len(others)
            programme.near(weights, -sum(shift for _, shift in others) / len(others), CENTRED)
    values, price = programme.solve()
    return {item: values[i] for item, i in column.items()}, values[total], price


def _point(stack: Stack, net: int, item: Item) -> tuple[Item, int]:
    """Return what tells lines apart that meet: a box has one place for them, a lane one for each net."""
    lane = not isinstance(item, Lead) and stack.boxes[item].frame
    return item, net if lane else -1


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
    return any(end.key == box for end in stack.nets[lead.net].targets) and stack.beside(lead.net, box)


class _Programme:
    """Minimise a sum of prices under linear conditions; all variables are at least 0."""

    def __init__(self, variables: int) -> None:
        self.price = [0.0] * variables
        self.conditions: list[tuple[dict[int, float], float]] = []

    def at_least(self, weights: dict[int, float], bound: float) -> None:
        """Demand that the weighted sum is not below `bound`."""
        self.conditions.append((weights, bound))

    def near(self, weights: dict[int, float], value: float, price: float) -> None:
        """Pay `price` for each unit between the weighted sum and `value`."""
        self.price.append(price)
        distance = len(self.price) - 1
        self.at_least({distance: 1.0, **weights}, value)
        self.at_least({distance: 1.0, **{i: -weight for i, weight in weights.items()}}, -value)

    def solve(self) -> tuple[list[float], float]:
        """Return the variables and the price."""
        matrix = np.zeros((len(self.conditions), len(self.price)))
        for line, (weights, _) in enumerate(self.conditions):
            for variable, weight in weights.items():
                matrix[line, variable] = -weight
        bounds = [-bound for _, bound in self.conditions]
        found = linprog(self.price, A_ub=matrix, b_ub=bounds, method="highs")
        return [float(value) for value in found.x], float(found.fun)
