"""Columns of a mirrored picture ask for themselves: everywhere, at their own place, near a predicted one."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import GREY, Dial, Field, Slider
from figures.style import COLORS, Say, color_bar, english, new_figure, picture, show_weights
from snippets.weight_assignment.hard.luong_local import LocalAttention

LENGTH = 40
HALF_WIDTH = 4
HALF_WIDTHS = tuple(range(1, 13))
ASKING = 14  # the query that a reader moves the window of
SHARPNESS = 25.0  # scores are SHARPNESS times the correlation of two columns
STEEPNESS = 20.0  # v_p


def columns() -> Tensor:
    """Columns of a picture of coffee without their mean and with length one, then a zero: (1, S, d)."""
    grey = picture("coffee", (32, LENGTH)).mean(1)  # (1, 32, S)
    features = nn.functional.normalize(grey - grey.mean(1, keepdim=True), dim=1).mT
    return nn.functional.pad(features, (0, 1))


def attention(monotonic: bool, half_width: int) -> LocalAttention:
    """Scores by correlation; the centre is read from the last number of a query. Set by hand."""
    attend = LocalAttention(33, half_width, monotonic)
    nn.init.zeros_(attend.W.weight)
    attend.W.weight.data[:32, :32] = SHARPNESS * torch.eye(32)
    if attend.predict is not None:
        hidden, _, output = attend.predict
        for layer, weight in ((hidden, 1.0), (output, STEEPNESS)):
            row = layer.get_parameter("weight")
            nn.init.zeros_(row)
            row.data[0, -1 if layer is hidden else 0] = weight
    return attend.eval()


def mirrored(key: Tensor) -> Tensor:
    """The columns from right to left; the last number says where each is expected."""
    query = key.flip(1)
    expected = torch.arange(LENGTH - 1, -1, -1) + 0.3  # not quite at the column
    query[0, :, -1] = ((expected / LENGTH).clamp(0.005, 0.995).logit() / STEEPNESS).atanh()
    return query


@torch.no_grad()
def weights() -> list[Tensor]:
    """Weights (T, S) of global attention, local-m and local-p."""
    key = columns()
    query = mirrored(key)
    blocks = attention(True, 2 * LENGTH), attention(True, HALF_WIDTH), attention(False, HALF_WIDTH)
    return [block.attention(query, key)[0] for block in blocks]


def figure(say: Say = english) -> Figure:
    """Draw the weights of the three side by side; a row is a query, a column a position of the source."""
    drawing, axes = new_figure(1, 3, height=2.2)
    for one, found, title in zip(axes, weights(), (say("global", "全局"), "local-m", "local-p"), strict=True):
        show_weights(one, found, title)
        one.set_xlabel(say("source s", "源端 s"))
    axes[0].set_ylabel(say("query t", "查询 t"))
    axes[1].plot([LENGTH - 1, 0], [0, LENGTH - 1], color=COLORS[0], linewidth=1, linestyle=":")
    color_bar(axes, say)
    return drawing


@torch.no_grad()
def explore(say: Say = english) -> Dial:
    """One query under any centre of the window and any half width."""
    key = columns()
    query = mirrored(key)[:, ASKING : ASKING + 1].repeat(1, LENGTH, 1)  # (1, LENGTH, d), a centre each
    query[0, :, -1] = mirrored(key)[0, :, -1].flip(0)
    found = torch.stack([attention(False, half_width).attention(query, key)[0] for half_width in HALF_WIDTHS])
    weights = found.movedim(0, 1)[:, :, None]  # (LENGTH, half widths, 1, S)
    shown = Field(say("source", "源端"), picture("coffee", (32, LENGTH)).mean(1)[:, 8:24], GREY, top=1.0)
    sliders = (
        Slider(say("centre p", "中心 p"), tuple(f"{n}.3" for n in range(LENGTH)), LENGTH - 1 - ASKING),
        Slider(say("half width D", "半宽 D"), tuple(map(str, HALF_WIDTHS)), HALF_WIDTHS.index(HALF_WIDTH)),
    )
    return Dial(sliders, (Field(say("weights", "权重"), weights, top=1.0), shown), ("",) * LENGTH)


if __name__ == "__main__":
    for title, found in zip(("global", "local-m", "local-p"), weights(), strict=True):
        right = found.flip(1).diagonal()
        likeliest = (found.flip(1).argmax(1) == torch.arange(LENGTH)).float().mean()
        print(f"{title}: on the right column {right.mean():.3f}, likeliest there {likeliest:.3f}")
        print(f"  row sums {found.sum(1).min():.3f} to {found.sum(1).max():.3f}")
