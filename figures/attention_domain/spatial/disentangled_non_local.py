"""One non-local map taken apart: what a query has in common with the keys, and what is salient for all."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import Say, english, new_figure, picture, show_image, show_weights
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
    """Rows: queries. Columns: the picture, the non-local weights, both terms, their sum."""
    image = picture("coffee", (SIZE, SIZE))
    x = features(image)
    whole, (pairwise, unary) = non_local(x), disentangled(x)
    titles = (
        say("query", "查询"),
        say("non-local", "非局部"),
        say("pairwise", "成对项"),
        say("unary", "一元项"),
        "DNL",
    )
    drawn, axes = new_figure(2, 5, height=2.75)
    for row, (i, j) in enumerate(QUERIES):
        query = i * SIZE + j
        show_image(axes[5 * row], image)
        axes[5 * row].plot(j, i, "o", ms=9, mfc="none", mec="white", mew=2)
        maps = (whole[query], pairwise[query], unary, pairwise[query] + unary)
        for panel, weights in zip(axes[5 * row + 1 : 5 * row + 5], maps, strict=True):
            show_weights(panel, weights.view(SIZE, SIZE))
        for panel, title in zip(axes[5 * row : 5 * row + 5], titles, strict=True):
            panel.set_title(title if row == 0 else "")
    return drawn
