"""Two positions of a photograph and the 110 anchors they read, weights set by hand."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

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
from snippets.attention_domain.spatial.asymmetric_non_local import APNB, PYRAMID

PICTURE = "rocket"
SIZE = 48
QUERIES = ((30, 18), (8, 40))  # row and column: bright sky, dark sky
SHARPNESS = 3.0


def features(image: Tensor) -> Tensor:
    """Three colours, standardised, of length one, split by sign: (1, 3, H, W) -> (1, 6, H, W)."""
    x = image - image.mean(dim=(2, 3), keepdim=True)
    x = F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)
    return torch.cat([x, -x], dim=1).relu()


@torch.no_grad()
def block() -> APNB:
    """Query and key are the features themselves."""
    made = APNB(6, reduction=1).eval()
    made.key.get_parameter("0.weight").copy_(SHARPNESS * torch.eye(6)[..., None, None])
    nn.init.zeros_(made.key.get_parameter("0.bias"))
    return made


@torch.no_grad()
def seen() -> Tensor:
    """Weights of the 110 anchors for both queries: (2, 110)."""
    weights = block().attention(features(picture(PICTURE, (SIZE, SIZE))))[0]
    return torch.stack([weights[i * SIZE + j] for i, j in QUERIES])


def figure(say: Say = english) -> Figure:
    """Above: the picture. Below, rows: queries; columns: the anchors of each grid, on one scale."""
    drawn, axes = new_figure(3, len(PYRAMID), height=5.0, height_ratios=(1.7, 1, 1))
    photograph, panels = drawn.add_subplot(clear_row(axes[: len(PYRAMID)])), axes[len(PYRAMID) :]
    show_image(photograph, picture(PICTURE, (SIZE, SIZE)), say("queries", "查询"))
    for row, ((i, j), weights) in enumerate(zip(QUERIES, seen(), strict=True)):
        mark(photograph, i, j, str(row + 1))
        parts = weights.split([side**2 for side in PYRAMID])
        for panel, side, part in zip(panels[row * len(PYRAMID) :], PYRAMID, parts, strict=False):
            cells = part.view(side, side).kron(torch.ones(SIZE // side, SIZE // side))
            show_weights(panel, cells, f"{side} × {side}" if row == 0 else "")
            panel.images[0].set_clim(0, float(seen().max()))
            panel.set_xlabel(f"Σ = {part.sum():.2f}")
    name_rows(panels, (say("1 bright", "1 亮处"), say("2 dark", "2 暗处")))
    color_bar(panels, say)
    return drawn
