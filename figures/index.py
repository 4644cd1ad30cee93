"""One position of one photograph under eight mechanisms: the first picture of the site."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

from figures.attention_domain.spatial import index as overview
from figures.attention_domain.spatial.index import QUERY, SIZE, maps
from figures.panels import Query
from figures.style import Say, color_bar, english, mark, new_figure, picture, show_image, show_weights

SHOWN = (0, 1, 3, 4, 6, 7, 9, 10)  # of the mechanisms of the overview, those that answer a position


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """The picture with the position, and the square roots of what each mechanism reads from there."""
    drawn, axes = new_figure(3, 3, height=3.5)
    whole = (-0.5, SIZE[1] - 0.5, SIZE[0] - 0.5, -0.5)
    show_image(axes[0], picture("coffee", (4 * SIZE[0], 4 * SIZE[1])), say("query", "查询"), extent=whole)
    found = list(maps(picture("coffee", SIZE), say).items())
    for panel, number in zip(axes[1:], SHOWN, strict=True):
        title, (rows, _) = found[number]
        show_weights(panel, rows[QUERY[0] * SIZE[1] + QUERY[1]].view(SIZE).sqrt(), title)
    for panel in axes:
        mark(panel, *QUERY)
    color_bar(axes, say, say("root of weight", "权重的平方根"))
    return drawn


def explore(say: Say = english) -> Query:
    """The same under any position."""
    every = overview.explore(say)
    return replace(every, fields=tuple(every.fields[number] for number in SHOWN))
