"""A non-local block whose queries are turned down until nothing is left but one map, weights set by hand."""

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
from snippets.attention_domain.spatial.global_context import GlobalContext
from snippets.attention_domain.spatial.non_local import NonLocalBlock

SIZE = 64
QUERIES = ((22, 46), (25, 20))  # row and column: fur, eye
STRENGTHS = (1.0, 0.3)  # factor of the query weights
CONSTANT = (-4.0, 3.0, 0.0)  # bias of the queries: dark and red is what everybody looks for
SHARPNESS = 5.0


def features(image: Tensor) -> Tensor:
    """Brightness and two colour differences, standardised, then vectors of length one: (1, 3, H, W)."""
    red, green, blue = image.unbind(dim=1)
    x = torch.stack([image.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    x = (x - x.mean(dim=(2, 3), keepdim=True)) / x.std(dim=(2, 3), keepdim=True)
    return nn.functional.normalize(x, dim=1)


@torch.no_grad()
def non_local(strength: float) -> NonLocalBlock:
    """theta = strength * SHARPNESS * x + CONSTANT, phi = x."""
    block = NonLocalBlock(3, reduction=1).eval()
    block.get_parameter("theta.weight").copy_(strength * SHARPNESS * torch.eye(3)[..., None, None])
    block.get_parameter("theta.bias").copy_(torch.tensor(CONSTANT))
    block.get_parameter("phi.weight").copy_(torch.eye(3)[..., None, None])
    block.get_parameter("phi.bias").zero_()
    return block


@torch.no_grad()
def context_weights(x: Tensor) -> Tensor:
    """The weights of a global context block whose score is CONSTANT: (N,)."""
    block = GlobalContext(3, reduction=1)
    block.score.weight.copy_(torch.tensor(CONSTANT)[None, :, None, None])
    return block.attention(x)[0, 0]


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: two queries. Columns: the picture, non-local weights at two strengths, the global context."""
    image = picture("chelsea", (SIZE, SIZE))
    x = features(image)
    drawn, axes = new_figure(2, 4, height=2.9)
    for row, (i, j) in enumerate(QUERIES):
        maps = [non_local(strength).attention(x)[0, i * SIZE + j] for strength in STRENGTHS]
        show_image(axes[4 * row], image, say("query", "查询") if row == 0 else "")
        for column, weights in enumerate((*maps, context_weights(x)), start=1):
            titles = (*(f"NL\nθ × {strength:g}" for strength in STRENGTHS), "GC")
            show_weights(axes[4 * row + column], weights.view(SIZE, SIZE))
            axes[4 * row + column].set_title(titles[column - 1] if row == 0 else "")
        for panel in axes[4 * row : 4 * row + 3]:
            mark(panel, i, j)
    name_rows(axes, (say("fur", "毛"), say("eye", "眼")))
    color_bar(axes, say)
    return drawn
