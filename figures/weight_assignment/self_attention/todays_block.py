"""A layer of 2017 and one of today, part by part; what differs is coloured."""

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from figures.style import COLORS, Say, english, new_figure

MIDDLE, WIDTH, HEIGHT = 5.4, 8.6, 0.64
"""Of a box; a row is one high, a column ten wide."""
ASIDE = 0.35
"""Where the path runs that no part changes."""
PLUS = 0.22
"""Half the height of a sign."""


class Part(NamedTuple):
    """What stands in a row; empty where one of the layers has nothing."""

    then: str
    now: str
    differs: bool = True


def parts(say: Say) -> list[list[Part]]:
    """What stands before the first correction, in it, and in the second."""
    return [
        [Part(say("+ positions", "+ 位置"), "")],
        [
            Part("LayerNorm", "RMSNorm"),
            Part(say("q, k, v per head", "每头各有 q、k、v"), say("k, v per group", "每组共用 k、v")),
            Part("", say("norm of q, k", "q、k 归一化")),
            Part("", say("rotation of q, k", "q、k 旋转")),
            Part(say("causal softmax", "因果 softmax"), say("causal softmax", "因果 softmax"), differs=False),
            Part("", say("gate", "门控")),
            Part(say("output matrix", "输出矩阵"), say("output matrix", "输出矩阵"), differs=False),
        ],
        [Part("LayerNorm", "RMSNorm"), Part("ReLU", "SwiGLU")],
    ]


def figure(say: Say = english) -> Figure:
    """Both layers, what does the same in one row."""
    drawn, axes = new_figure(1, 2, height=4.4)
    titles = (say("2017, pre-norm", "2017 年，pre-norm"), say("today", "今天"))
    for panel, title, now in zip(axes, titles, (False, True), strict=True):
        draw(
            panel,
            [[(part.now if now else part.then, part.differs) for part in group] for group in parts(say)],
        )
        panel.set_title(title)
    return drawn


def draw(panel: Axes, groups: list[list[tuple[str, bool]]]) -> None:
    """Draw a layer from top to bottom; each group but the first is a correction, added to what came in."""
    row, upper = 0.0, -0.9  # where the line goes on
    for number, group in enumerate(groups):
        enters = row - 0.7
        for words, differs in group:
            if words:
                box(panel, row, words, COLORS[1] if differs else "black")
                line(panel, upper, row - HEIGHT / 2)
                upper = row + HEIGHT / 2
            row += 1
        if number:
            panel.text(MIDDLE, row, "⊕", ha="center", va="center", fontsize=13)
            panel.plot([MIDDLE, ASIDE, ASIDE, MIDDLE - 0.4], [enters, enters, row, row], color="black", lw=1)
            line(panel, upper, row - PLUS)
            upper = row + PLUS
            row += 1.1
        else:
            row += 0.4
    line(panel, upper, row - 0.2)
    panel.set_xlim(0, 10)
    panel.set_ylim(row - 0.2, -0.9)
    panel.axis("off")


def box(panel: Axes, row: float, words: str, color: str) -> None:
    """Draw a part."""
    corner = (MIDDLE - WIDTH / 2, row - HEIGHT / 2)
    panel.add_patch(
        FancyBboxPatch(corner, WIDTH, HEIGHT, "round,pad=0,rounding_size=0.2", ec=color, fc="none", lw=1.5)
    )
    panel.text(MIDDLE, row + 0.05, words, color=color, ha="center", va="center", fontsize=10)


def line(panel: Axes, upper: float, lower: float) -> None:
    """Draw a piece of the path through the parts."""
    panel.plot([MIDDLE, MIDDLE], [upper, lower], color="black", lw=1, solid_capstyle="butt")
