"""Two positions of one photograph, weights set by hand: what they predict, keep, collect and are given."""

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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
from snippets.attention_domain.spatial.psanet import PointwiseSpatialAttention

SIZE = (40, 40)
POSITIONS = ((30, 7), (10, 25))  # row and column: red sleeve, bright wall
OFFSETS = ((-16.0, 8.0), (6.0, -12.0))  # where red positions look, and where all others look
STRENGTH, WIDTH = 8.0, 8.0


def redness(image: Tensor) -> Tensor:
    """How red a position is, from 0 to 1, and how little: (1, 3, H, W) -> (1, 2, H, W)."""
    red, green, _ = image.unbind(dim=1)
    share = ((red - green - 0.1) / 0.2).clamp(0, 1)
    return torch.stack([share, 1 - share], dim=1)


@torch.no_grad()
def block() -> PointwiseSpatialAttention:
    """A block that passes both features on and predicts from each a hill around one offset."""
    made = PointwiseSpatialAttention(2, SIZE, reduction=1).eval()
    for layer in ("reduce.0", "predict.0.0", "reduce_p.0", "predict_p.0.0"):
        made.get_parameter(f"{layer}.weight").copy_(torch.eye(2)[..., None, None])
    rows = torch.arange(1 - SIZE[0], SIZE[0])[:, None]
    columns = torch.arange(1 - SIZE[1], SIZE[1])
    hills = [
        STRENGTH * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * WIDTH**2)) for y, x in OFFSETS
    ]
    scores = torch.stack(hills, dim=-1).view(-1, 2, 1, 1)
    for last in (made.predict[1], made.predict_p[1]):
        assert isinstance(last, nn.Conv2d)
        last.weight.copy_(scores)
    return made


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: positions. Columns: the picture, the predicted scores with the part kept, and both weights."""
    image = picture("astronaut", SIZE)
    x, made = redness(image), block()
    (H, W), (predicted, weights) = SIZE, (made.predict(made.reduce(x))[0], made.attention(x)[0])
    titles = (
        say("position", "位置"),
        say("predicted", "预测"),
        say("collect", "收集"),
        say("distribute", "分发"),
    )
    drawn, axes = new_figure(2, 4, height=2.8)
    for row, (i, j) in enumerate(POSITIONS):
        panels = axes[4 * row : 4 * row + 4]
        show_image(panels[0], image)
        show_weights(panels[1], predicted[:, i, j].view(2 * H - 1, 2 * W - 1))
        kept = Rectangle((W - 1.5 - j, H - 1.5 - i), W, H, fill=False, edgecolor="white", linewidth=2)
        panels[1].add_patch(kept)
        panels[1].plot(W - 1, H - 1, "+", ms=9, color="white", mew=2)
        for direction in (0, 1):
            show_weights(panels[2 + direction], weights[direction, i * W + j].view(H, W))
        for panel in (panels[0], panels[2], panels[3]):
            mark(panel, i, j)
        for panel, title in zip(panels, titles, strict=True):
            panel.set_title(title if row == 0 else "")
    name_rows(axes, (say("sleeve", "衣袖"), say("wall", "墙面")))
    color_bar(axes, say)
    return drawn
