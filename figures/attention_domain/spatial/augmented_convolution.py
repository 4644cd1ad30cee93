"""Above: logits by offset become logits by position. Below: one head, with and without relative positions."""

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from figures.style import (
    COLORS,
    Say,
    clear_row,
    color_bar,
    english,
    mark,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial.augmented_convolution import AugmentedConv2d, absolute_from_relative

LENGTH = 4
SIZE = (56, 48)
QUERY = (45, 8)  # row and column: orange suit
SPREAD = 7.0  # standard deviation of the neighbourhood, in positions
PADDING = 99


def show_cells(axes: Axes, values: Tensor, row_of: Tensor, title: str, start: int = 0) -> None:
    """Write a matrix of integers, each in the colour of the row it comes from, padding as a grey dot.

    `start` is the column it begins in, so that what is cut stands below where it is cut from.
    """
    for i, (numbers, origins) in enumerate(zip(values.tolist(), row_of.tolist(), strict=True)):
        for j, (number, origin) in enumerate(zip(numbers, origins, strict=True), start):
            text, color = ("•", COLORS[5]) if origin == PADDING else (str(number), COLORS[origin])
            axes.text(j, i, text.replace("-", "−"), ha="center", va="center", color=color)
    axes.set(xlim=(-0.6, 2 * LENGTH - 0.4), ylim=(len(values) - 0.4, -0.6), aspect="auto", title=title)
    axes.axis("off")


def padded(relative: Tensor) -> Tensor:
    """The steps of `absolute_from_relative` up to the last: (L, 2 L - 1) -> (L + 1, 2 L - 1)."""
    flat = F.pad(relative, (0, 1), value=PADDING).flatten()
    return F.pad(flat, (0, LENGTH - 1), value=PADDING).view(LENGTH + 1, -1)


def trick(panels: list[Axes], say: Say) -> None:
    """Offsets of 4 positions: by offset with one more column, read in shorter rows, cut."""
    offsets = torch.arange(1 - LENGTH, LENGTH).expand(LENGTH, -1)
    rows = torch.arange(LENGTH)[:, None].expand(-1, 2 * LENGTH - 1)
    show_cells(panels[0], F.pad(offsets, (0, 1)), F.pad(rows, (0, 1), value=PADDING), say("pad", "补一列"))
    show_cells(panels[1], padded(offsets), padded(rows), say("reshape", "重排"))
    panels[1].add_patch(
        Rectangle((LENGTH - 1.5, -0.5), LENGTH, LENGTH, fill=False, edgecolor="black", linewidth=1.5)
    )
    cut = absolute_from_relative(offsets), absolute_from_relative(rows)
    show_cells(panels[2], *cut, say("slice", "切片"), start=LENGTH - 1)


def features(image: Tensor) -> Tensor:
    """Brightness and two colour differences as vectors of length one, and a constant: (1, 4, H, W)."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = x - x.mean(dim=(2, 3), keepdim=True)
    x = F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


@torch.no_grad()
def layer(width: bool, height: bool) -> AugmentedConv2d:
    """One head. Queries are all four features, keys the first three; the embeddings use the constant."""
    made = AugmentedConv2d(4, 2, 1, key_channels=4, value_channels=1, num_heads=1, size=SIZE)
    made.qkv.weight.zero_()
    made.qkv.weight[:4, :, 0, 0] = 2 * torch.eye(4)  # 2 = root of the width, by which q is divided
    made.qkv.weight[4:8, :, 0, 0] = torch.diag(torch.tensor([6.0, 6.0, 6.0, 0.0]))
    for table, side, used in ((made.rel_height, SIZE[0], height), (made.rel_width, SIZE[1], width)):
        table.zero_()
        if used:
            table[:, 3] = -(torch.arange(1 - side, side) / SPREAD).square() / 2
    return made


@torch.no_grad()
def weights(image: Tensor, width: bool, height: bool) -> Tensor:
    """Weights of the query: (H, W)."""
    seen = layer(width, height).attention(features(image))[0, 0].view(*SIZE, *SIZE)
    return seen[QUERY]


def figure(say: Say = english) -> Figure:
    """Above: pad, reshape, slice. Below: the picture with a query, and its weights."""
    image = picture("astronaut", SIZE)
    drawn, axes = new_figure(3, 2, height=7.2, height_ratios=(2.7, 1.2, 1.2))
    above = clear_row(axes[:2]).subgridspec(3, 1, height_ratios=(LENGTH, LENGTH + 1, LENGTH))
    trick([drawn.add_subplot(above[row]) for row in range(3)], say)
    photograph, *maps = axes[2:]
    show_image(photograph, image, say("query", "查询"))
    mark(photograph, *QUERY)
    for panel, width, height, title in (
        (maps[0], False, False, "$q k$"),
        (maps[1], True, False, "$q (k + r^W)$"),
        (maps[2], True, True, "$q (k + r^W + r^H)$"),
    ):
        show_weights(panel, weights(image, width, height), title)
    color_bar(axes[2:], say)
    return drawn
