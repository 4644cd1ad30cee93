"""A laid out graph as inline SVG: theme colours, no script, no ids."""

import re
from collections.abc import Callable
from html import escape
from itertools import groupby, pairwise
from math import ceil, hypot

from sitekit.diagram import text
from sitekit.diagram.geometry import Line, Point, Rect
from sitekit.diagram.graph import Graph, Lane, Step
from sitekit.diagram.layout import Drawing, arrange, orders

Say = Callable[[str, str], str]
"""Picks the text in the language of the page: `say("learned weights", "可学习的权重")`."""

LABEL, SHAPE, LEADING = 12.0, 11.0, 15.0
"""Font sizes and line height (pixels)."""
SIDE, ABOVE, NARROWEST = 8.0, 7.0, 80.0
"""Free space in a box beside and above its text; least width of a box (pixels)."""
MARGIN, FOOT = 7.0, 24.0
"""Around the drawing; below it for the legend (pixels)."""
BOLD = 1.12
"""How much wider bold letters are."""
FONTS = {"title": BOLD * LABEL, "label": LABEL, "shape": SHAPE}
"""Size, or what is as wide, of each class of text (pixels)."""
Text = list[tuple[str, str]]
"""Class and text of each line in a box."""
ROUND, ARROW = 6.0, 6.0
"""Radius of the corners of lines; length of an arrowhead (pixels)."""
WRAPS = ((230.0, 230.0), (150.0, 170.0), (112.0, 150.0), (96.0, 130.0), (80.0, 112.0), (66.0, 66.0))
"""Widths at which labels are broken where boxes stand side by side and where one stands alone, tried in
turn until the drawing fits a phone (pixels)."""
PHONE, LARGEST = 358.0, 380.0
"""Width of the text on a phone 390 pixels wide; a diagram up to the second shrinks to it, others scroll."""

NARROW_PHONE = 326.0
"""Width of the text on a phone 360 pixels wide."""
BADGE = 7.5
"""Radius of the circle around the number of a step (pixels)."""

NAME = 12.0
"""From the border of a lane to its name (pixels)."""
LOOP = re.compile(r"[,，] ?(?=\S+ ×$)")
"""Between the name of a lane and how often it runs."""

DROP = 3.0
"""How much lower a subscript stands (pixels)."""
SUBSCRIPT = re.compile(r"(?<=\b[A-Za-zα-ω])_([a-z]{0,2}\d?)\b")


def render(graph: Graph, say: Say, room: float = PHONE) -> str:
    """Return the diagram in its own container, which scrolls if the diagram is wider than the page.

    Args:
        room: how wide it may be, if that is possible (pixels).
    """
    boxes, drawing = fitted(graph, room)
    legend = _legend(graph, drawing.height + MARGIN, say)
    width = ceil(max(drawing.width + 2 * MARGIN, _legend_width(graph, say)))
    height = ceil(drawing.height + 2 * MARGIN + (FOOT if legend else 0))
    title = escape(say(f"Dataflow of {graph.title}", f"{graph.title} 的数据流"))
    fits = width <= LARGEST
    left = (width - drawing.width) / 2
    body = "".join(
        [
            *(_lane(rect, lane, drawing) for rect, lane in zip(drawing.frames, graph.lanes, strict=True)),
            *_lines(drawing.lines),
            *(_box(boxes[i], step, drawing.boxes[i]) for i, step in enumerate(graph.steps)),
        ]
    )
    scrolls = "" if fits else f' tabindex="0" role="group" aria-label="{title}"'
    style = f' style="max-width:{"100%" if fits else "none"};height:auto"'
    return (
        f'<div class="dataflow"{scrolls}>'
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img"{style}'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{title}</title><desc>{escape(describe(graph, say))}</desc>"
        f'<g transform="translate({left:g} {MARGIN:g})">{body}</g>{legend}</svg></div>'
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
            where = say(f"in {graph.lanes[lane].name}: ", f"在 {graph.lanes[lane].name} 中：")
        elif not parts:
            where = ""
        then = say("then ", "然后") if parts else ""
        parts.append(
            then
            + where
            + comma.join(filter(None, (part for step in steps for part in (step.title, step.label))))
        )
    steps_said = semicolon.join(parts)
    return say(
        f"From {given}: {steps_said}; the result is {result}.", f"由 {given}：{steps_said}；结果为 {result}。"
    ).replace("\u00a0", " ")


def fitted(graph: Graph, room: float = PHONE) -> tuple[list[Text], Drawing]:
    """Lay out with labels as wide as they may be for a phone, or for as few breaks as that leaves."""
    tried: list[tuple[list[Text], Drawing]] = []
    found = orders(graph)
    widths = [_least_width(lane) for lane in graph.lanes]
    alone: set[int] = set()
    for beside, single in WRAPS:
        boxes = [_text(step, single if i in alone else beside) for i, step in enumerate(graph.steps)]
        drawing = arrange(found, [_size(lines) for lines in boxes], widths)
        tried.append((boxes, drawing))
        if drawing.width + 2 * MARGIN <= room:
            break
        alone = _alone(drawing)
    return min(tried, key=lambda one: one[1].width)


def _least_width(lane: Lane) -> float:
    """Return the width at which the name of a lane stands left of the line that enters in its middle."""
    name, _ = _name_and_count(lane)
    return 2 * (NAME + text.width(name, LABEL * BOLD))


def _alone(drawing: Drawing) -> set[int]:
    """Return the boxes beside which there is no other."""
    middles = {key: rect.y + rect.height / 2 for key, rect in drawing.boxes.items()}
    return {
        key
        for key, middle in middles.items()
        if isinstance(key, int) and sum(abs(middle - other) < 1 for other in middles.values()) == 1
    }


def _text(step: Step, limit: float) -> Text:
    """Return class and text of each line in a box, broken at a width."""
    title = text.wrap(step.title, LABEL * BOLD, limit) if step.title else []
    label = text.wrap(step.label, LABEL, limit) if step.label else []
    shape = [step.shape] if step.shape else []
    return [
        *(("title", line) for line in title),
        *(("label", line) for line in label),
        *(("shape", line) for line in shape),
    ]


def _size(lines: Text) -> tuple[float, float]:
    widest = max(text.width(line, FONTS[kind]) for kind, line in lines)
    return max(ceil(widest + 2 * SIDE), NARROWEST), len(lines) * LEADING + 2 * ABOVE


def _box(lines: Text, step: Step, rect: Rect) -> str:
    marks = [mark for mark, is_set in (("learned", step.learned), ("weighs", step.weighs)) if is_set]
    kind = " ".join(["box", *marks]) if step.kind == "step" else "box end"
    radius = 6 if step.kind == "step" else min(rect.height / 2, 16)
    first = rect.y + (rect.height - len(lines) * LEADING) / 2 + 11
    drawn = [_rect(kind, rect, radius)]
    drawn += [
        f'<text class="{kind}" x="{rect.middle:.1f}" y="{first + i * LEADING:.1f}">{_subscripts(line)}</text>'
        for i, (kind, line) in enumerate(lines)
    ]
    return "".join(drawn) + _badge(step.number, rect.x + 2, rect.y + 1)


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


def _lane(rect: Rect, lane: Lane, drawing: Drawing) -> str:
    """Draw a lane; its name, and how often it runs, stand each in the first corner where nothing else is."""
    drawn, taken = [_rect(f"lane {lane.kind}", rect, 10)], list(drawing.boxes.values())
    for words, right_first in zip(_name_and_count(lane), (False, True), strict=True):
        if words:
            place = _free(rect, words, drawing.lines, taken, right_first=right_first)
            taken.append(place)
            at = f'x="{place.x:.1f}" y="{place.y + 11:.1f}"'
            drawn.append(f'<text class="name {lane.kind}" {at}>{escape(words)}</text>')
    return "".join(drawn) + _badge(lane.number, rect.x + 2, rect.y + 1)


def _name_and_count(lane: Lane) -> tuple[str, str]:
    """Return the parts of "Encoder, N ×"."""
    name, *count = LOOP.split(lane.name)
    return name, count[0] if count else ""


def _free(rect: Rect, words: str, lines: list[Line], taken: list[Rect], *, right_first: bool) -> Rect:
    size = text.width(words, LABEL * BOLD)
    columns = [rect.x + NAME, rect.right - 8 - size]
    corners = [
        Rect(x, y, size, LABEL)
        for y in (rect.y + 7, rect.bottom - 6 - LABEL)
        for x in (reversed(columns) if right_first else columns)
    ]
    free = [
        one
        for one in corners
        if not any(_touches(one, line) for line in lines) and not any(_meets(one, box) for box in taken)
    ]
    return (free or corners)[0]


def _badge(number: str, x: float, y: float) -> str:
    if not number:
        return ""
    return (
        f'<circle class="number" cx="{x:.1f}" cy="{y:.1f}" r="{BADGE:g}"/>'
        f'<text class="count" x="{x:.1f}" y="{y + 4:.1f}">{number}</text>'
    )


def _meets(one: Rect, two: Rect) -> bool:
    return one.x < two.right and two.x < one.right and one.y < two.bottom and two.y < one.bottom


def _touches(rect: Rect, line: Line) -> bool:
    return any(
        min(x, u) < rect.right + 2
        and max(x, u) > rect.x - 2
        and min(y, v) < rect.bottom
        and max(y, v) > rect.y
        for (x, y), (u, v) in pairwise(line.points)
    )


def _lines(lines: list[Line]) -> list[str]:
    """Draw the lines of each value as one path, so that shared parts do not show darker."""
    drawn = []
    for source in dict.fromkeys(line.source for line in lines):
        own = [line for line in lines if line.source == source]
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
    x, drawn = 3.0, ""
    for mark, words in _marks(graph, say):
        drawn += f'<rect class="box {mark}" x="{x:.1f}" y="{top + 8:.1f}" width="14" height="11" rx="3"/>'
        drawn += f'<text class="legend" x="{x + 21:.1f}" y="{top + 18:.1f}">{words}</text>'
        x += 21 + text.width(words, SHAPE) + 12
    note = f'<text class="legend" x="{x:.1f}" y="{top + 18:.1f}">{graph.note}</text>' if graph.note else ""
    return drawn + note


def _legend_width(graph: Graph, say: Say) -> float:
    words = [words for _, words in _marks(graph, say)] + ([graph.note] if graph.note else [])
    return sum(text.width(one, SHAPE) + 33 for one in words)


def _marks(graph: Graph, say: Say) -> list[tuple[str, str]]:
    """Return the classes of boxes that need a word, and the word."""
    return [
        *(
            [("learned", say("learned weights", "可学习的权重"))]
            if any(s.learned for s in graph.steps)
            else []
        ),
        *([("weighs", "g(x)")] if any(s.weighs for s in graph.steps) else []),
    ]
