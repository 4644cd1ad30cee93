"""One channel of coordinate attention, weights set by hand: rows and columns that hold a coin open."""

import torch
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor

from figures.style import COLORS, Say, color_bar, english, name_rows, new_figure, show_image, show_weights
from snippets.attention_domain.channel_spatial.coordinate import CoordinateAttention

SIDE, COIN = 120, 56
COINS = ((164, 184), (168, 75), (166, 244), (95, 245))  # top left corners in the photograph
SCENES = (((0, 8, 56),), ((0, 4, 60), (1, 60, 4)), ((0, -8, 80), (1, 14, 54), (2, 42, 28), (3, 72, -6)))


def scene(places: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Lay coins (which, top, left) on black: (1, 1, SIDE, SIDE) in [0, 1]."""
    photograph = torch.from_numpy(data.coins() / 255).float()
    radius = torch.linspace(-1, 1, COIN).square()
    disc = (radius[:, None] + radius < 0.82).float()
    canvas = torch.zeros(SIDE + 2 * COIN, SIDE + 2 * COIN)
    for which, top, left in places:
        row, column = COINS[which]
        coin = photograph[row : row + COIN, column : column + COIN] * disc
        spot = canvas[COIN + top :, COIN + left :][:COIN, :COIN]
        torch.maximum(spot, coin, out=spot)
    return canvas[COIN:-COIN, COIN:-COIN][None, None]


@torch.no_grad()
def block() -> CoordinateAttention:
    """A gate opens where the mean of its row or column exceeds 0.07."""
    attention = CoordinateAttention(1)
    for parameter in attention.parameters():
        parameter.zero_()
    attention.shared.get_parameter("1.weight").fill_(1)
    attention.shared.get_parameter("0.weight")[0] = 80.0
    attention.shared.get_parameter("0.bias")[0] = 3.0  # where the activation is the identity
    for last in (attention.conv_h, attention.conv_w):
        last.weight[0, 0] = 1.0
        last.get_parameter("bias").fill_(-3 - 80 * 0.07)
    return attention.eval()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Columns: three scenes. Rows: picture; product of the gates, with both gates beside it."""
    attention = block()
    drawn, axes = new_figure(2, 3, height=3.4)
    titles = say("one coin", "一枚"), say("two coins", "两枚"), say("diagonal", "对角线")
    for column, (places, title) in enumerate(zip(SCENES, titles, strict=True)):
        x = scene(places)
        a_h, a_w = attention.gates(x)
        show_image(axes[column], x, title, vmin=0, vmax=1)
        weights = axes[3 + column]
        show_weights(weights, attention.attention(x))
        above, beside = weights.inset_axes((0, 1.04, 1, 0.16)), weights.inset_axes((1.04, 0, 0.16, 1))
        above.fill_between(range(SIDE), a_w.flatten(), color=COLORS[0])
        beside.fill_betweenx(range(SIDE), a_h.flatten(), color=COLORS[1])
        above.set(xlim=(0, SIDE - 1), ylim=(0, 1))
        beside.set(xlim=(0, 1), ylim=(SIDE - 1, 0))
        for bars in (above, beside):
            bars.set_axis_off()
    name_rows(axes, (say("picture", "图像"), say("weights", "权重")))
    color_bar(axes, say)
    return drawn
