"""One SRM layer, weights set by hand, on the tiles of a picture: it reads their contrast."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, english, new_figure, picture, show_image
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
    """The picture; mean and deviation of its tiles, coloured by the gate; the tiles after their gates."""
    x, srm = tiles(), layer()
    mean, deviation = srm.style(x)[:, 0].unbind(dim=1)
    gates = srm.attention(x)
    drawn, axes = new_figure(1, 3, height=2.5, width_ratios=(1, 1.25, 1))
    show_image(axes[0], mosaic(x), "x", vmin=0, vmax=1)
    colors = [COLORS[1] if gate > 0.5 else COLORS[0] for gate in gates.flatten()]
    axes[1].scatter(mean, deviation, c=colors, s=18)
    axes[1].axhline(deviation.mean().item(), color=COLORS[-1], linewidth=1, linestyle="--")
    axes[1].set(xlabel=say("mean", "均值"), ylabel=say("std", "标准差"))
    axes[1].set(xticks=[0, 0.5, 1], yticks=[0, 0.2, 0.4], xlim=(0, 1), ylim=(0, 0.4))
    show_image(axes[2], mosaic(gates * x), "g x", vmin=0, vmax=1)
    return drawn
