"""One query in one photograph, weights set by hand: what it reads in one pass, in two, and of all pairs."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Photograph, Query
from figures.style import COLORS, Say, color_bar, english, mark, new_figure, picture, show_image, show_weights
from snippets.attention_domain.spatial.criss_cross import CrissCrossAttention

SIZE = 33
QUERY = (23, 10)  # row and column
TARGET = (14, 28)
SHARPNESS = 2.0  # of the scores
GRID = 16  # positions a side that a reader can choose
TITLES = ("R = 1", "R = 2", "N × N")


def features(image: Tensor) -> Tensor:
    """Three colours, centred and scaled to a deviation of one: (1, 3, H, W) -> same."""
    x = image - image.mean(dim=(2, 3), keepdim=True)
    return F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)


@torch.no_grad()
def block() -> CrissCrossAttention:
    """Query, key and value are the features themselves; gamma is one."""
    made = CrissCrossAttention(3, reduction=1)
    for layer, factor in ((made.query, SHARPNESS), (made.key, 1.0), (made.value, 1.0)):
        layer.weight.copy_(factor * torch.eye(3)[..., None, None])
        nn.init.zeros_(layer.get_parameter("bias"))
    nn.init.ones_(made.gamma)
    return made.eval()


def dense(weights: Tensor) -> Tensor:
    """Weights (1, H, W, H + W) of crosses as an (N, N) matrix."""
    _, height, width, _ = weights.shape
    column, row = weights[0].split((height, width), dim=-1)
    rows, columns = torch.eye(height), torch.eye(width)
    pairs = torch.einsum("hwi,wj->hwij", column, columns) + torch.einsum("hwj,hi->hwij", row, rows)
    return pairs.reshape(height * width, height * width)


@torch.no_grad()
def rows(size: int) -> list[Tensor]:
    """Weights of all positions, (size * size, size, size) each: one pass, two passes, all pairs."""
    made, x = block(), features(picture("coffee", (size, size)))
    first = dense(made.attention(x))
    made.recurrence = 1
    second = dense(made.attention(made(x)))
    query, key = made.query(x).flatten(2)[0], made.key(x).flatten(2)[0]
    full = (query.mT @ key).softmax(dim=-1)
    return [pairs.view(-1, size, size) for pairs in (first, second @ first, full)]


def figure(say: Say = english) -> Figure:
    """Draw the picture and the square roots of the three maps; lines are the two routes to TARGET."""
    drawn, axes = new_figure(2, 2, height=4.5)
    show_image(axes[0], picture("coffee", (SIZE, SIZE)), say("query", "查询"))
    for panel, weights, title in zip(axes[1:], rows(SIZE), TITLES, strict=True):
        show_weights(panel, weights[QUERY[0] * SIZE + QUERY[1]].sqrt(), title)
    for panel in axes:
        mark(panel, *QUERY)
    (r, c), (i, j) = QUERY, TARGET
    for corner in ((r, j), (i, c)):
        axes[2].plot([c, corner[1], j], [r, corner[0], i], color=COLORS[2], linewidth=1.5)
    for panel in axes[2:]:
        panel.plot(j, i, "s", ms=6, mfc="none", mec=COLORS[2], mew=2)
    color_bar(axes, say, say("root of weight", "权重的平方根"))
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Query:
    """What any position reads, on a smaller map."""
    fields = (Field(title, pairs, root=True) for title, pairs in zip(TITLES, rows(GRID), strict=True))
    shown = Photograph(picture("coffee", (12 * GRID, 12 * GRID))[0])
    return Query(shown, tuple(fields), start=(11, 5))
