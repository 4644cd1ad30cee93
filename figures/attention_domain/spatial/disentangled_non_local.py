"""One non-local map taken apart: what a query has in common with the keys, and what is salient for all."""

import torch
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
from snippets.attention_domain.spatial.disentangled_non_local import DisentangledNonLocal
from snippets.attention_domain.spatial.non_local import NonLocalBlock

SIZE = 64
QUERIES = ((52, 52), (47, 24))  # row and column: saucer, shadow
SHARPNESS = 50.0
CENTRED = 0.8  # part of the mean colour taken away beforehand


def features(image: Tensor) -> Tensor:
    """Colours, of whose mean a part is left: (1, 3, H, W) -> same."""
    return image - CENTRED * image.mean(dim=(2, 3), keepdim=True)


@torch.no_grad()
def non_local(x: Tensor) -> Tensor:
    """Weights of a non-local block with theta = SHARPNESS * x and phi = x: (N, N)."""
    block = NonLocalBlock(3, reduction=1).eval()
    for layer, factor in ((block.theta, SHARPNESS), (block.phi, 1.0)):
        layer.get_parameter("weight").copy_(factor * torch.eye(3)[..., None, None])
        layer.get_parameter("bias").zero_()
    return block.attention(x)[0]


@torch.no_grad()
def disentangled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms with the same theta and phi; the unary score is the one hidden in them: (N, N), (N,)."""
    block = DisentangledNonLocal(3, reduction=1).eval()
    for layer, factor in ((block.theta, SHARPNESS), (block.phi, 1.0)):
        layer.weight.copy_(factor * torch.eye(3)[..., None, None])
    block.m.weight.copy_(SHARPNESS * x.mean(dim=(2, 3))[..., None, None])
    return block.pairwise(x)[0], block.unary(x)[0, 0]


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Above: the picture. Below, rows: queries; columns: the non-local weights, both terms, their sum."""
    image = picture("coffee", (SIZE, SIZE))
    x = features(image)
    whole, (pairwise, unary) = non_local(x), disentangled(x)
    titles = (
        say("non-local", "非局部"),
        say("pairwise", "成对项"),
        say("unary", "一元项"),
        "DNL",
    )
    drawn, axes = new_figure(3, 4, height=4.5, height_ratios=(1.7, 1, 1))
    photograph, panels = drawn.add_subplot(clear_row(axes[:4])), axes[4:]
    show_image(photograph, image, say("queries", "查询"))
    for row, (i, j) in enumerate(QUERIES):
        query = i * SIZE + j
        mark(photograph, i, j, str(row + 1))
        maps = (whole[query], pairwise[query], unary, pairwise[query] + unary)
        for panel, weights, title in zip(panels[4 * row : 4 * row + 4], maps, titles, strict=True):
            show_weights(panel, weights.view(SIZE, SIZE), title if row == 0 else "")
    name_rows(panels, (say("1 saucer", "1 茶碟"), say("2 shadow", "2 阴影")))
    color_bar(panels, say)
    return drawn
