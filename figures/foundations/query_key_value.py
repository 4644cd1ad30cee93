"""The three stages on a photograph: one coin asks all patches that do not overlap it, nothing is trained."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from figures.style import (
    COLORS,
    WEIGHT_MAP,
    Say,
    color_bar,
    english,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.foundations.query_key_value import dot, read, weigh

HEIGHT, WIDTH = 120, 152
PATCH, STRIDE = 20, 4
ROWS, COLUMNS = (HEIGHT - PATCH) // STRIDE + 1, (WIDTH - PATCH) // STRIDE + 1
ROW, COLUMN = 10, 8  # the patch that asks
SHARPNESS = 40.0


def patches() -> tuple[Tensor, Tensor, Tensor]:
    """The picture (1, 1, H, W), keys and values (1, S, PATCH * PATCH) of its S overlapping patches."""
    coins = picture("coins", (HEIGHT, WIDTH))[:, :1]
    value = F.unfold(coins, PATCH, stride=STRIDE).mT
    return coins, F.normalize(value - value.mean(dim=2, keepdim=True), dim=2), value


def elsewhere() -> Tensor:
    """Mask (ROWS, COLUMNS): True where a patch does not overlap the one that asks."""
    far = (torch.arange(ROWS) - ROW).abs() * STRIDE >= PATCH
    return far[:, None] | ((torch.arange(COLUMNS) - COLUMN).abs() * STRIDE >= PATCH)


def stages() -> tuple[Tensor, Tensor, Tensor]:
    """Scores and weights (ROWS, COLUMNS), and the patch that is read (PATCH, PATCH)."""
    _, key, value = patches()
    query = SHARPNESS * key[:, ROW * COLUMNS + COLUMN, None]
    scores = dot(query, key)
    weights = weigh(scores, elsewhere().view(1, 1, -1))
    output = read(weights, value)
    return scores.view(ROWS, COLUMNS), weights.view(ROWS, COLUMNS), output.view(PATCH, PATCH)


def figure(say: Say = english) -> Figure:
    """The coin that asks, its scores, its weights, and beside it what is read."""
    coins, _, _ = patches()
    scores, weights, output = stages()
    drawn, (photograph, score_map, weight_map, pair) = new_figure(2, 2, height=4.6)
    left, top = COLUMN * STRIDE, ROW * STRIDE
    show_image(photograph, coins, say("query", "查询"))
    photograph.add_patch(
        Rectangle((left - 0.5, top - 0.5), PATCH, PATCH, fill=False, edgecolor=COLORS[1], linewidth=3)
    )
    show_image(score_map, scores, say("1 score", "1 打分"), cmap=WEIGHT_MAP)
    color_bar([photograph, score_map], say, say("score", "分数"))
    show_weights(weight_map, weights, say("2 weigh", "2 加权"))
    for row, column in (weights > 0.02).nonzero().tolist():
        label = f"{weights[row, column].item():.0%}"
        weight_map.text(column, row + 1, label, color="white", ha="center", va="top")
    color_bar([weight_map, pair], say)
    asked = coins[0, 0, top : top + PATCH, left : left + PATCH]
    show_image(pair, torch.cat([asked, torch.full((PATCH, 2), torch.nan), output], dim=1))
    for column, label in ((0, say("query", "查询")), (PATCH + 2, say("3 read", "3 读取"))):
        pair.text(column + PATCH / 2, -1.2, label, ha="center", va="bottom")
    return drawn
