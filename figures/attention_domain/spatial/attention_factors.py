"""Two queries in one photograph, weights set by hand: what each of the four factors reads by itself."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import (
    Say,
    clear_row,
    color_bar,
    english,
    mark,
    name_rows,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial.attention_factors import GeneralizedAttention

SIZE = (48, 64)
CHANNELS = 16  # brightness, red - green, yellow - blue, a constant one, twelve empty
QUERIES = ((26, 10), (27, 37))  # row and column: red saucer, shadow of the cup
NEAR, SHIFT, MATCH, SALIENCE = 40.0, 15.0, 6.0, 3.0


def features(image: Tensor) -> Tensor:
    """Three standardised colour features of length one, and a constant: (1, 3, H, W) -> (1, 16, H, W)."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = x - x.mean(dim=(2, 3), keepdim=True)
    x = F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)
    return torch.cat([x, torch.ones_like(x[:, :1]), x.new_zeros(1, CHANNELS - 4, *x.shape[2:])], dim=1)


@torch.no_grad()
def block(factor: int) -> GeneralizedAttention:
    """A block of one head with this factor alone; query and key are the features themselves."""
    made = GeneralizedAttention(
        CHANNELS, 1, "".join("1" if factor == e else "0" for e in (1, 2, 3, 4))
    ).eval()
    unit = torch.eye(CHANNELS)
    if factor == 1:
        made.query.weight.copy_(MATCH * unit[..., None, None])
    if factor in (1, 3):
        colour = unit.clone()
        colour[3] = 0  # without the constant
        made.key.weight.copy_(colour[..., None, None])
    if factor == 2:
        made.query.weight.copy_(unit[..., None, None])
    if factor == 3:
        made.u.copy_(SALIENCE * unit[1])
    if factor == 4:
        made.v.copy_(unit[3])
    if factor in (2, 4):
        sine, cosine = 2, CHANNELS // 4 + 2  # the third of four frequencies, 1000 ** -0.5
        for layer in (made.position_x, made.position_y):
            layer.weight.zero_()
            layer.weight[3, cosine] = NEAR  # channel 3, always one: largest at offset zero
        made.position_x.weight[0, sine] = -SHIFT  # bright: to the left, dark: to the right
        made.position_y.weight[1, sine] = -SHIFT  # red: up, green: down
    return made


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Above: the picture. Below, rows: queries; columns: the weights of each factor by itself."""
    image = picture("coffee", SIZE)
    x = features(image)
    drawn, axes = new_figure(3, 4, height=4.0, height_ratios=(1.8, 1, 1))
    photograph, maps = drawn.add_subplot(clear_row(axes[:4])), axes[4:]
    show_image(photograph, image, say("queries", "查询"))
    for factor in (1, 2, 3, 4):
        weights = block(factor).attention(x)[0, 0].expand(SIZE[0] * SIZE[1], -1).view(*SIZE, *SIZE)
        for number, ((i, j), panel) in enumerate(zip(QUERIES, maps[factor - 1 :: 4], strict=True), start=1):
            show_weights(panel, weights[i, j], f"E{factor}" if number == 1 else "")
            mark(panel, i, j)
    for number, (i, j) in enumerate(QUERIES, start=1):
        mark(photograph, i, j, str(number))
    name_rows(maps, (say("1 saucer", "1 茶碟"), say("2 shadow", "2 阴影")))
    color_bar(maps, say)
    return drawn
