"""One photograph, then its tiles in another order: the weights move with the tiles, weights set by hand."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import (
    Say,
    color_bar,
    english,
    mark,
    name_rows,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial.self_attention_2d import SelfAttention2d

SIZE = 96
TILES = 3
ORDER = (4, 6, 8, 1, 3, 0, 7, 5, 2)  # tile that is put in each place
QUERIES = ((36, 47), (60, 14))  # row and column: coffee, saucer


def shuffled(image: Tensor) -> Tensor:
    """(1, D, H, W) -> same, its 3 x 3 tiles in the order above."""
    side = SIZE // TILES
    tiles = image.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)[:, :, list(ORDER)]
    rows = tiles.unflatten(2, (TILES, TILES)).permute(0, 1, 2, 4, 3, 5)
    return torch.as_tensor(rows).reshape(image.shape)


def moved(i: int, j: int) -> tuple[int, int]:
    """Where a position lies after `shuffled`."""
    marker = torch.zeros(1, 1, SIZE, SIZE)
    marker[0, 0, i, j] = 1
    row, column = divmod(int(shuffled(marker).argmax()), SIZE)
    return row, column


def features(image: Tensor) -> Tensor:
    """Brightness and two colour differences, standardised, then vectors of length one: (1, 3, H, W)."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = (x - x.mean(dim=(2, 3), keepdim=True)) / x.std(dim=(2, 3), keepdim=True)
    return nn.functional.normalize(x, dim=1)


@torch.no_grad()
def block() -> SelfAttention2d:
    """Queries 8 times the features, keys the features."""
    made = SelfAttention2d(3, reduction=1, value_reduction=1, bias=False)
    for layer, factor in ((made.query, 8.0), (made.key, 1.0)):
        layer.weight.copy_(factor * torch.eye(3)[..., None, None])
    return made.eval()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: the picture, the same in another order. Columns: the picture, the weights of two queries."""
    image = picture("coffee", (SIZE, SIZE))
    x = features(image)
    drawn, axes = new_figure(2, 3, height=3.7)
    for row, (seen, source) in enumerate(((image, x), (shuffled(image), shuffled(x)))):
        weights = block().attention(source)[0].view(SIZE, SIZE, SIZE, SIZE)
        show_image(axes[3 * row], seen, "x" if row == 0 else "")
        for column, (i, j) in enumerate(QUERIES, start=1):
            i, j = moved(i, j) if row else (i, j)
            mark(axes[3 * row], i, j, str(column))
            title = f"{say('query', '查询')} {column}" if row == 0 else ""
            show_weights(axes[3 * row + column], weights[i, j], title)
            mark(axes[3 * row + column], i, j)
    name_rows(axes, (say("as it is", "原图"), say("tiles moved", "图块换序")))
    color_bar(axes, say)
    return drawn
