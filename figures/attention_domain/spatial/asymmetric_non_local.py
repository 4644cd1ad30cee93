"""Two positions of a photograph and the 110 anchors they read, weights set by hand."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, english, new_figure, picture, show_image, show_weights
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
    """Rows: queries. Columns: the picture, then the anchors of each grid; black is zero, all grids alike."""
    drawn, axes = new_figure(2, 1 + len(PYRAMID), height=3.1)
    for row, ((i, j), weights) in enumerate(zip(QUERIES, seen(), strict=True)):
        left, *right = axes[row * len(axes) // 2 : (row + 1) * len(axes) // 2]
        show_image(left, picture(PICTURE, (SIZE, SIZE)), say("query", "查询") if row == 0 else "")
        left.plot(j, i, "o", ms=10, mfc="none", mec="white", mew=2.5)
        parts = weights.split([side**2 for side in PYRAMID])
        for panel, side, part in zip(right, PYRAMID, parts, strict=True):
            cells = part.view(side, side).kron(torch.ones(SIZE // side, SIZE // side))
            show_weights(panel, cells, f"{side} × {side}" if row == 0 else "")
            panel.images[0].set_clim(0, float(weights.max()))
            panel.set_xlabel(f"Σ = {part.sum():.2f}")
    return drawn
