"""Scores of equal vectors over a picture, which axis turns which pair, and how far each axis is seen."""

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, clear_row, color_bar, english, mark, new_figure
from snippets.foundations.rotary_axes import RotaryAxesAttention, Turns, axial, grid, mrope

SIDE = 15
PLACES = ((3, 4), (9, 11))
DISTANCES = torch.arange(1, 151)
BASE = 1e6  # of Qwen2-VL
WAYS = {
    "contiguous": mrope((16, 24, 24), BASE),
    "interleaved": mrope((24, 20, 20), BASE, "interleaved"),
}
BY_AXIS, IN_LINE = axial((16, 16), base=100.0), mrope((32,), base=100.0)


def scores(turns: Turns, place: Tensor) -> Tensor:
    """Scores of equal vectors, the first with all, as shares of that with itself: (N, axes) -> (N,)."""
    features = 2 * len(turns.axis)
    x = torch.ones(1, 1, len(place), features)
    logs = RotaryAxesAttention(turns).attention(x, x, x, place[None])[0, 0, 0].log()
    share: Tensor = 1 + (logs - logs[0]) / features**0.5
    return share


def over_picture(turns: Turns, row: int, column: int) -> Tensor:
    """Scores of the patch in this row and column with all: (SIDE, SIDE)."""
    place = grid(SIDE, SIDE) if len(set(turns.axis)) > 1 else torch.arange(SIDE**2)[:, None]
    own = place[row * SIDE + column, None]
    return scores(turns, torch.cat([own, place]))[1:].view(SIDE, SIDE)


def along(turns: Turns, axis: int) -> Tensor:
    """Scores of two tokens over their distance, which is along one axis alone."""
    place = torch.zeros(len(DISTANCES) + 1, 3, dtype=torch.long)
    place[1:, axis] = DISTANCES
    return scores(turns, place)[1:]


def figure(say: Say = english) -> Figure:
    """Above: scores over a picture. Middle: the axis of each pair. Below: scores over the distance."""
    drawn, panels = new_figure(3, 3, height=5.2, height_ratios=(0.85, 0.6, 1.2))
    shown = [(BY_AXIS, *PLACES[0]), (BY_AXIS, *PLACES[1]), (IN_LINE, *PLACES[0])]
    titles = [say("row, column", "行与列")] * 2 + [say("reading order", "阅读顺序")]
    for panel, (turns, row, column), title in zip(panels, shown, titles, strict=False):
        panel.imshow(over_picture(turns, row, column), vmin=0, vmax=1)
        mark(panel, row, column)
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
    color_bar(panels[:3], say, say("share of own score", "与自身分数之比"))
    middle = drawn.add_subplot(clear_row(panels[3:6]))
    rows = {say("axial", "轴向"): tuple(axis + 1 for axis in axial((32, 32)).axis)}
    rows |= {
        say("contiguous", "连续"): WAYS["contiguous"].axis,
        say("interleaved", "交错"): WAYS["interleaved"].axis,
    }
    middle.imshow(torch.tensor(list(rows.values())), cmap=ListedColormap(COLORS[:3]), aspect="auto")
    middle.set_yticks(range(3), rows)
    middle.hlines((0.5, 1.5), -0.5, 63.5, color="black", linewidth=1)
    middle.tick_params(length=0)
    middle.set_xticks([0, 20, 40, 63])
    middle.set_xlabel(say("pair of features", "特征对"))
    below = clear_row(panels[6:]).subgridspec(1, 2)
    names = (say("time", "时间"), say("row", "行"), say("column", "列"))
    left = None
    for n, (turns, title) in enumerate(zip(WAYS.values(), list(rows)[1:], strict=True)):
        panel = left = drawn.add_subplot(below[n], sharey=left)
        for axis, (name, color) in enumerate(zip(names, COLORS, strict=False)):
            panel.semilogx(DISTANCES, along(turns, axis), color=color, label=name)
        panel.set_title(title)
        panel.set_xlabel(say("distance", "距离"))
        panel.set_xticks([1, 10, 100], ["1", "10", "100"])
        panel.minorticks_off()
        panel.set_ylim(0.5, 1.05)
        if n:
            panel.tick_params(labelleft=False)
            panel.legend(loc="lower left")
        else:
            panel.set_ylabel(say("score", "分数"))
    return drawn


if __name__ == "__main__":
    for name, turns in WAYS.items():
        for axis in range(3):
            print(name, axis, [f"{s:.3f}" for s in along(turns, axis)[[0, 7, 29, 98]]])
