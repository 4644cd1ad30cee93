"""Patches of three textures, three kernels: how the temperature spreads the weights over the triangle."""

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor, nn

from figures.style import COLORS, Say, clear_row, english, new_figure
from snippets.attention_domain.branch.dynamic_convolution import DynamicConv2d

TEXTURES = ("brick", "grass", "gravel")
SIDE, PATCHES = 64, 64  # of the photographs of 512 x 512
SHOWN = (0, 9, 10)  # epochs of the triangles
SHARPNESS = 0.1  # of the scores
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])


def patches() -> Tensor:
    """All patches, as edges in two directions at two distances: (3 x PATCHES, 4, SIDE - 2, SIDE - 2)."""
    photographs = torch.stack([torch.from_numpy(getattr(data, name)() / 255) for name in TEXTURES]).float()
    tiles = photographs.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).reshape(3 * PATCHES, 1, SIDE, SIDE)
    pixels = F.pad(tiles, (2, 2, 2, 2), mode="replicate")
    edges = [pixels - pixels.roll(step, axis) for axis in (2, 3) for step in (1, 3)]
    return torch.cat(edges, dim=1)[..., 3:-3, 3:-3].abs()


@torch.no_grad()
def layer(x: Tensor) -> DynamicConv2d:
    """Scores by hand: the nearer the channel means are to those of a texture, the higher its kernel."""
    conv = DynamicConv2d(4, 1, kernels=3, reduction=1).eval()
    first, second = (part for part in conv.scores if isinstance(part, nn.Linear))
    means = x.mean(dim=(2, 3)).view(3, PATCHES, 4)
    centres, variance = means.mean(dim=1), means.var(dim=1).mean(dim=0)
    first.weight.copy_(torch.eye(4))
    first.bias.zero_()
    second.weight.copy_(SHARPNESS * centres / variance)
    second.bias.copy_(-SHARPNESS * (centres.square() / variance).sum(dim=1) / 2)
    return conv


def triangle(axes: Axes, weights: Tensor) -> None:
    """A dot per patch; its distance from a side is the weight of the kernel at the opposite corner."""
    outline = torch.cat([CORNERS, CORNERS[:1]])
    axes.plot(*outline.T, color="black", linewidth=1)
    for dots, color in zip((weights @ CORNERS).view(3, PATCHES, 2), COLORS, strict=False):
        axes.scatter(dots[:, 0], dots[:, 1], s=14, color=color, alpha=0.7, linewidths=0)
    axes.set_aspect("equal")
    axes.set_axis_off()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Above: the weights of all patches at three epochs. Below: the weight of the right kernel by epoch."""
    x = patches()
    conv = layer(x)
    drawn, axes = new_figure(2, 3, height=4.4, height_ratios=(1, 1.8))
    for panel, epoch in zip(axes, SHOWN, strict=False):
        conv.anneal(epoch)
        triangle(panel, conv.attention(x))
        panel.set_title(f"τ = {conv.temperature:.3g}")
    curves = drawn.add_subplot(clear_row(axes[3:]))
    by_epoch = []
    for epoch in range(13):
        conv.anneal(epoch)
        by_epoch.append(conv.attention(x).view(3, PATCHES, 3).mean(dim=1).diagonal())
    names = say("brick", "砖墙"), say("grass", "草地"), say("gravel", "碎石")
    for name, color, weights in zip(names, COLORS, torch.stack(by_epoch).T, strict=False):
        curves.plot(weights, "o-", color=color, label=name)
    curves.set_ylim(0, 1.05)
    curves.set_xlabel(say("epoch", "轮数"))
    curves.set_ylabel("π")
    curves.legend(loc="upper left", title=say("kernel for", "卷积核对应"))
    return drawn
