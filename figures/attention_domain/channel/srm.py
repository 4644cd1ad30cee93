"""One SRM layer, weights set by hand, on the tiles of a picture: it reads their contrast."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, clear_row, english, new_figure, picture, show_image
from snippets.attention_domain.channel.srm import SRMLayer

SIDE, TILE = 128, 16


def tiles() -> Tensor:
    """The photographer cut into tiles, each a sample of one channel: (64, 1, TILE, TILE) in [0, 1]."""
    grey = picture("camera", (SIDE, SIDE))[0, 0]  # (SIDE, SIDE)
    return grey.unfold(0, TILE, TILE).unfold(1, TILE, TILE).reshape(-1, 1, TILE, TILE)


def mosaic(x: Tensor) -> Tensor:
    """Put the tiles back: (64, 1, TILE, TILE) -> (SIDE, SIDE)."""
    rows = SIDE // TILE
    return x.view(rows, rows, TILE, TILE).transpose(1, 2).reshape(SIDE, SIDE)


@torch.no_grad()
def layer() -> SRMLayer:
    """A layer that opens where the deviation is large; in training mode, it compares the tiles."""
    srm = SRMLayer(1)
    srm.cfc.copy_(torch.tensor([[0.0, 1.0]]))
    srm.norm.weight.fill_(3)
    return srm.train()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """The picture, and its tiles after their gates; below, mean and deviation of the tiles."""
    x, srm = tiles(), layer()
    mean, deviation = srm.style(x)[:, 0].unbind(dim=1)
    gates = srm.attention(x)
    drawn, (left, right, *below) = new_figure(2, 2, height=4.2)
    show_image(left, mosaic(x), "x", vmin=0, vmax=1)
    show_image(right, mosaic(gates * x), "g x", vmin=0, vmax=1)
    dots = drawn.add_subplot(clear_row(below))
    colors = [COLORS[1] if gate > 0.5 else COLORS[0] for gate in gates.flatten()]
    dots.scatter(mean, deviation, c=colors, s=18)
    dots.axhline(deviation.mean().item(), color=COLORS[-1], linewidth=1, linestyle="--")
    dots.set(xlabel=say("mean", "均值"), ylabel=say("standard deviation", "标准差"))
    dots.set(xticks=[0, 0.5, 1], yticks=[0, 0.2, 0.4], xlim=(0, 1), ylim=(0, 0.4))
    return drawn
