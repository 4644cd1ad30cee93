"""Where everything of a diagram stands: boxes and lines in rows, each lane laid out first by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from sitekit.diagram.columns import middles
from sitekit.diagram.geometry import Box, End, Key, Lead, Line, Net, Placement, Rect
from sitekit.diagram.graph import Graph
from sitekit.diagram.routes import Gap, lines
from sitekit.diagram.rows import stacks

PADDING = 11.0
"""Between the border of a lane and its boxes (pixels); ports add a row above and below."""


@dataclass(frozen=True)
class Port:
    """Where the value of step `source` passes the border of a lane."""

    source: int
    inward: bool


@dataclass(frozen=True)
class Lane:
    """The box that stands for a lane while the rest is laid out."""

    number: int


@dataclass(frozen=True)
class Drawing:
    """Rectangles of steps and lanes by number, and the lines; the upper left corner is (0, 0)."""

    steps: dict[int, Rect]
    lanes: dict[int, Rect]
    lines: list[Line]
    width: float
    height: float


def place(boxes: list[Box], nets: list[Net]) -> Placement:
    """Place boxes in rows and draw the nets; the order of `boxes` must follow the arrows."""
    solved = [(middles(stack), stack) for stack in stacks(boxes, nets)]
    (middle, width, _), stack = min(solved, key=lambda one: round(one[0][2], 3))
    gaps = [Gap(stack, upper, middle) for upper in range(len(stack.rows) - 1)]
    rects: dict[Key, Rect] = {}
    edges: list[tuple[float, float]] = []
    top = 0.0
    for number, items in enumerate(stack.rows):
        row = [stack.boxes[item] for item in items if not isinstance(item, Lead)]
        high = max((box.height for box in row), default=0.0)
        plain = max((box.height for box in row if not box.frame), default=0.0)
        for box in row:
            height = box.height if box.frame else plain
            rects[box.key] = Rect(
                middle[box.key] - box.width / 2, top + (high - height) / 2, box.width, height
            )
        edges.append((top, top + high))
        top += high + (gaps[number].height if number < len(gaps) else 0.0)
    return Placement(rects, lines(stack, gaps, middle, rects, edges), width, edges[-1][1])


def arrange(graph: Graph, size: Callable[[int], tuple[float, float]], widths: list[float]) -> Drawing:
    """Lay out a graph; `size` gives the size of a step's box, `widths` the least width of each lane."""
    insides = {number: _inside(graph, number, size) for number in range(len(graph.lanes))}
    boxes: dict[Key, Box] = {}
    for index, step in enumerate(graph.steps):
        if step.lane is None:
            last = step.kind == "output"
            boxes[index] = Box(index, *size(index), last=last)
        elif Lane(step.lane) not in boxes:
            inside = insides[step.lane]
            size_of_lane = (max(inside.width + 2 * PADDING, widths[step.lane]), inside.height)
            boxes[Lane(step.lane)] = Box(Lane(step.lane), *size_of_lane, frame=True)
    nets = []
    for index, step in enumerate(graph.steps):
        targets = [_end(graph, insides, reader, index) for reader in _readers(graph, index)
                   if step.lane is None or graph.steps[reader].lane != step.lane]  # fmt: skip
        if targets:
            nets.append(Net(index, _source(graph, insides, index), tuple(dict.fromkeys(targets))))
    return _unfold(graph, place(_sorted(boxes, nets), nets), insides)


def _readers(graph: Graph, index: int) -> list[int]:
    return [reader for reader, step in enumerate(graph.steps) if index in step.inputs]


def _inside(graph: Graph, lane: int, size: Callable[[int], tuple[float, float]]) -> Placement:
    """Lay out one lane with a port for each value that enters or leaves it."""
    members = [index for index, step in enumerate(graph.steps) if step.lane == lane]
    sources = dict.fromkeys(
        one for index in members for one in graph.steps[index].inputs if one not in members
    )
    leaving = [index for index in members if any(graph.steps[r].lane != lane for r in _readers(graph, index))]
    boxes = [
        *(Box(Port(source, True), 0.0, 0.0, frame=True) for source in sources),
        *(Box(index, *size(index)) for index in members),
        *(Box(Port(index, False), 0.0, 0.0, frame=True, last=True) for index in leaving),
    ]
    nets = []
    for source in [*sources, *members]:
        ends = [End(reader) for reader in _readers(graph, source) if reader in members]
        ends += [End(Port(source, False))] * (source in leaving)
        start = End(source) if source in members else End(Port(source, True))
        nets.append(Net(source, start, tuple(ends)))
    return place(boxes, [net for net in nets if net.targets])


def _source(graph: Graph, insides: dict[int, Placement], index: int) -> End:
    lane = graph.steps[index].lane
    return End(index) if lane is None else _port(insides, lane, Port(index, False))


def _end(graph: Graph, insides: dict[int, Placement], reader: int, source: int) -> End:
    lane = graph.steps[reader].lane
    return End(reader) if lane is None else _port(insides, lane, Port(source, True))


def _port(insides: dict[int, Placement], lane: int, port: Port) -> End:
    inside = insides[lane]
    return End(Lane(lane), inside.rects[port].middle - inside.width / 2)


def _sorted(boxes: dict[Key, Box], nets: list[Net]) -> list[Box]:
    """Return the boxes so that each follows those it reads, otherwise in the order of the code."""
    waiting, done = list(boxes.values()), list[Box]()
    while waiting:
        reads = {end.key for net in nets for end in net.targets if boxes[net.source.key] in waiting}
        ready = next(box for box in waiting if box.key not in reads)
        waiting.remove(ready)
        done.append(ready)
    return done


def _unfold(graph: Graph, outside: Placement, insides: dict[int, Placement]) -> Drawing:
    """Put the contents of each lane where its box stands."""
    steps = {key: rect for key, rect in outside.rects.items() if isinstance(key, int)}
    lanes = {key.number: rect for key, rect in outside.rects.items() if isinstance(key, Lane)}
    drawn = list(outside.lines)
    for number, rect in lanes.items():
        x, y = rect.x + (rect.width - insides[number].width) / 2, rect.y
        for key, inner in insides[number].rects.items():
            if isinstance(key, int):
                steps[key] = inner.moved(x, y)
        drawn += [line.moved(x, y) for line in insides[number].lines]
    return Drawing(steps, lanes, drawn, outside.width, outside.height)
