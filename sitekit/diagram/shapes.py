"""A laid out graph as inline SVG: theme colours, no script, no ids."""

import re
from collections.abc import Callable
from html import escape
from itertools import groupby, pairwise
from math import ceil, hypot

from sitekit.diagram import text
from sitekit.diagram.geometry import Line, Point, Rect
from sitekit.diagram.graph import Graph, Step
from sitekit.diagram.layout import Drawing, arrange

Say = Callable[[str, str], str]
"""Picks the text in the language of the page: `say("learned weights", "可学习的权重")`."""

LABEL, SHAPE, LEADING = 13.0, 12.0, 16.0
"""Font sizes and line height (pixels)."""
SIDE, ABOVE, NARROWEST = 8.0, 7.0, 80.0
"""Free space in a box beside and above its text; least width of a box (pixels)."""
MARGIN, FOOT = 2.0, 24.0
"""Around the drawing; below it for the legend (pixels)."""
ROUND, ARROW = 6.0, 6.0
"""Radius of the corners of lines; length of an arrowhead (pixels)."""
WRAPS = (230.0, 150.0, 112.0, 96.0, 72.0)
"""Widths at which labels are broken, tried in turn until the drawing fits a phone (pixels)."""
PHONE, LARGEST = 358.0, 380.0
"""Width of the text on a phone 390 pixels wide; a diagram up to the second shrinks to it, others scroll."""

DROP = 3.0
"""How much lower a subscript stands (pixels)."""
SUBSCRIPT = re.compile(r"(?<=\b[A-Za-z])_([a-z]{1,2})\b")


def render(graph: Graph, say: Say) -> str:
    """Return the diagram in its own container, which scrolls if the diagram is wider than the page."""
    boxes, drawing = fitted(graph)
    legend = _legend(graph, drawing.height + MARGIN, say)
    width = ceil(drawing.width + 2 * MARGIN)
    height = ceil(drawing.height + 2 * MARGIN + (FOOT if legend else 0))
    title = escape(say(f"Dataflow of {graph.title}", f"{graph.title} 的数据流"))
    fits = width <= LARGEST
    body = "".join(
        [
            *(_lane(rect, graph.lanes[lane], drawing) for lane, rect in drawing.lanes.items()),
            *_lines(drawing.lines),
            *(_box(boxes[i], graph.steps[i], rect) for i, rect in sorted(drawing.steps.items())),
        ]
    )
    scrolls = "" if fits else f' tabindex="0" role="group" aria-label="{title}"'
    style = f' style="max-width:{"100%" if fits else "none"};height:auto"'
    return (
        f'<div class="dataflow"{scrolls}>'
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img"{style}'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{title}</title><desc>{escape(describe(graph, say))}</desc>"
        f'<g transform="translate({MARGIN:g} {MARGIN:g})">{body}</g>{legend}</svg></div>'
    ).replace("\n", "")


def describe(graph: Graph, say: Say) -> str:
    """Return one sentence that lists the steps."""
    comma, semicolon = say(", ", "，"), say("; ", "；")
    given = comma.join(f"{step.label} {step.shape}" for step in graph.steps if step.kind == "input")
    result = comma.join(step.shape for step in graph.steps if step.kind == "output")
    parts: list[str] = []
    for lane, steps in groupby((step for step in graph.steps if step.kind == "step"), lambda step: step.lane):
        where = say("outside it: ", "在其外：")
        if lane is not None:
            where = say(f"in {graph.lanes[lane]}: ", f"在 {graph.lanes[lane]} 中：")
        elif not parts:
            where = ""
        then = say("then ", "然后") if parts else ""
        parts.append(then + where + comma.join(step.label for step in steps))
    steps_said = semicolon.join(parts)
    return say(
        f"From {given}: {steps_said}; the result is {result}.", f"由 {given}：{steps_said}；结果为 {result}。"
    ).replace("\u00a0", " ")


def fitted(graph: Graph) -> tuple[list[list[str]], Drawing]:
    """Lay out with labels as wide as they may be for a phone, or for as few breaks as that leaves."""
    tried = []
    lanes = [2 * (text.width(name, LABEL) + 2 * SIDE) for name in graph.lanes]
    for limit in WRAPS:
        boxes = [text.wrap(step.label, LABEL, limit) for step in graph.steps]
        sizes = [_size(lines, step) for lines, step in zip(boxes, graph.steps, strict=True)]
        tried.append((boxes, arrange(graph, sizes.__getitem__, lanes)))
        if tried[-1][1].width + 2 * MARGIN <= PHONE:
            return tried[-1]
    return tried[-1]


def _size(lines: list[str], step: Step) -> tuple[float, float]:
    widest = max(*(text.width(line, LABEL) for line in lines), text.width(step.shape, SHAPE))
    return max(ceil(widest + 2 * SIDE), NARROWEST), (len(lines) + 1) * LEADING + 2 * ABOVE


def _box(lines: list[str], step: Step, rect: Rect) -> str:
    kind = "box learned" if step.learned else "box" if step.kind == "step" else "box end"
    radius = 6 if step.kind == "step" else rect.height / 2
    first = rect.y + (rect.height - (len(lines) + 1) * LEADING) / 2 + 12
    texts = [("label", line) for line in lines] + [("shape", step.shape)]
    return _rect(kind, rect, radius) + "".join(
        f'<text class="{kind}" x="{rect.middle:.1f}" y="{first + i * LEADING:.1f}">{_subscripts(line)}</text>'
        for i, (kind, line) in enumerate(texts)
    )


def _subscripts(line: str) -> str:
    """Lower what follows the underscore in names such as d_k and W_q."""
    parts = SUBSCRIPT.split(escape(line))
    lowered = (f'<tspan class="sub" dy="{DROP:g}">{part}</tspan>' for part in parts[1::2])
    raised = (f'<tspan dy="{-DROP:g}">{part}</tspan>' if part else "" for part in parts[2::2])
    return parts[0] + "".join(low + high for low, high in zip(lowered, raised, strict=True))


def _rect(kind: str, rect: Rect, radius: float) -> str:
    return (
        f'<rect class="{kind}" x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}"'
        f' height="{rect.height:.1f}" rx="{radius:g}"/>'
    )


def _lane(rect: Rect, name: str, drawing: Drawing) -> str:
    """Draw a lane with its name in the first corner where nothing else is."""
    size = text.width(name, LABEL) + 4
    left, right = rect.x + 9, rect.right - 5 - size
    corners = [Rect(x, y, size, LABEL) for y in (rect.y + 6, rect.bottom - 6 - LABEL) for x in (left, right)]
    free = [one for one in corners if not any(_touches(one, line) for line in drawing.lines)]
    place = (free or corners)[0]
    return _rect("lane", rect, 10) + (
        f'<text class="name" x="{place.x:.1f}" y="{place.y + 11:.1f}">{escape(name)}</text>'
    )


def _touches(rect: Rect, line: Line) -> bool:
    return any(
        min(x, u) < rect.right + 5
        and max(x, u) > rect.x - 5
        and min(y, v) < rect.bottom
        and max(y, v) > rect.y
        for (x, y), (u, v) in pairwise(line.points)
    )


def _lines(lines: list[Line]) -> list[str]:
    """Draw the lines of each value as one path, so that shared parts do not show darker."""
    drawn = []
    for step in dict.fromkeys(line.step for line in lines):
        own = [line for line in lines if line.step == step]
        drawn.append(f'<path class="line" d="{"".join(map(_path, own))}"/>')
        heads = "".join(_head(line.points[-2], line.points[-1]) for line in own if line.target is not None)
        drawn.append(f'<path class="arrow" d="{heads}"/>' if heads else "")
    return drawn


def _path(line: Line) -> str:
    points = list(line.points)
    if line.target is not None:
        points[-1] = _towards(points[-1], points[-2], ARROW - 0.5)
    path = f"M{_xy(points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(ROUND, _distance(before, corner) / 2, _distance(corner, after) / 2)
        path += (
            f"L{_xy(_towards(corner, before, radius))}Q{_xy(corner)} {_xy(_towards(corner, after, radius))}"
        )
    return path + f"L{_xy(points[-1])}"


def _head(before: Point, tip: Point) -> str:
    back = _towards(tip, before, ARROW)
    across = ((back[1] - tip[1]) * 0.6, (tip[0] - back[0]) * 0.6)
    one, other = (back[0] + across[0], back[1] + across[1]), (back[0] - across[0], back[1] - across[1])
    return f"M{_xy(tip)}L{_xy(one)}L{_xy(other)}Z"


def _towards(start: Point, goal: Point, way: float) -> Point:
    share = way / max(_distance(start, goal), 1e-9)
    return start[0] + (goal[0] - start[0]) * share, start[1] + (goal[1] - start[1]) * share


def _distance(one: Point, two: Point) -> float:
    return hypot(one[0] - two[0], one[1] - two[1])


def _xy(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _legend(graph: Graph, top: float, say: Say) -> str:
    learned = any(step.learned for step in graph.steps)
    words = [
        *([say("learned weights", "可学习的权重")] if learned else []),
        *([graph.note] if graph.note else []),
    ]
    swatch = f'<rect class="box learned" x="3" y="{top + 8:.1f}" width="14" height="11" rx="3"/>'
    line = f'<text class="legend" x="{24 if learned else 3}" y="{top + 18:.1f}">{" · ".join(words)}</text>'
    return (swatch if learned else "") + line if words else ""
