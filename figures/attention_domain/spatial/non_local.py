"""Two queries in one photograph, weights set by hand: what each of the four pairwise functions reads."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import SIGNED, Field, Photograph, Query
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
from snippets.attention_domain.spatial.non_local import NonLocalBlock

SIZE = 64
QUERIES = ((42, 18), (50, 50))  # row and column: orange suit, black helmet
GRID = 14  # positions a side that a reader can choose


def features(image: Tensor) -> Tensor:
    """Brightness, red - green and yellow - blue, centred, as vectors of length one: (1, 3, H, W) -> same."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return F.normalize(x / x.std(dim=(2, 3), keepdim=True), dim=1)


@torch.no_grad()
def block(mode: str) -> NonLocalBlock:
    """theta = phi = identity, without brightness in the embedded Gaussian; w_f adds the rednesses."""
    made = NonLocalBlock(3, mode, reduction=1, scale=6.0)
    kept = torch.tensor([0.0, 1.0, 1.0]) if mode == "embedded_gaussian" else torch.ones(3)
    for layer in (made.theta, made.phi):
        if isinstance(layer, nn.Conv2d):
            layer.weight.copy_(kept.diag()[..., None, None])
            layer.get_parameter("bias").zero_()
    if mode == "concatenation":
        made.w_f.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]))
    return made.eval()


def titles(say: Say) -> dict[str, str]:
    """What the four functions are called."""
    return {
        "gaussian": say("Gaussian", "高斯"),
        "embedded_gaussian": say("embedded", "嵌入高斯"),
        "dot_product": say("dot product", "点积"),
        "concatenation": say("concat.", "拼接"),
    }


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Above: the picture. Below, rows: queries; columns: the weights of each pairwise function."""
    image = picture("astronaut", (SIZE, SIZE))
    x = features(image)
    drawn, axes = new_figure(3, 4, height=5.0, height_ratios=(1.7, 1, 1))
    photograph, panels = drawn.add_subplot(clear_row(axes[:4])), axes[4:]
    show_image(photograph, image, say("queries", "查询"))
    for row, (i, j) in enumerate(QUERIES):
        mark(photograph, i, j, str(row + 1))
    for column, (mode, title) in enumerate(titles(say).items()):
        weights = block(mode).attention(x)[0].view(SIZE, SIZE, SIZE, SIZE)
        for row, (i, j) in enumerate(QUERIES):
            panel, seen = panels[4 * row + column], weights[i, j]
            if mode == "dot_product":
                most = seen.abs().max().item()
                show_image(panel, seen, cmap=SIGNED, vmin=-most, vmax=most)
            else:
                show_weights(panel, seen)
            panel.set_title(title if row == 0 else "")
            panel.set_xlabel(f"Σ = {seen.sum():.2f}".replace("-", "\N{MINUS SIGN}"))
    name_rows(panels, (say("1 suit", "1 宇航服"), say("2 helmet", "2 头盔")))
    color_bar([*panels[:2], *panels[4:6]], say)
    color_bar([*panels[2:4], *panels[6:]], say, "±")
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Query:
    """What any position reads through each of the four, on a smaller map."""
    x = features(picture("astronaut", (GRID, GRID)))
    fields = []
    for mode, title in titles(say).items():
        rows = block(mode).attention(x)[0].view(-1, GRID, GRID)
        fields.append(Field(title, rows, SIGNED) if mode == "dot_product" else Field(title, rows))
    shown = Photograph(picture("astronaut", (12 * GRID, 12 * GRID))[0])
    return Query(shown, tuple(fields), start=(9, 4))
