"""Two nodes, set by hand, for red and for dark: an edge tells dark places whether there is red anywhere."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import WEIGHT_MAP, Say, color_bar, english, name_rows, new_figure, picture, show_image
from snippets.attention_domain.spatial.glore import GloReUnit

SIZE = (96, 84)
EDGE = 1.0


def without_red(image: Tensor, threshold: float = 0.12) -> Tensor:
    """Replace reddish pixels by grey ones of the same brightness: (1, 3, H, W) -> (1, 3, H, W)."""
    red = image[:, :1] - image[:, 1:].mean(dim=1, keepdim=True)
    return torch.where(red > threshold, image.mean(dim=1, keepdim=True), image)


def features(image: Tensor) -> Tensor:
    """Redness and darkness, neither below zero: (1, 3, H, W) -> (1, 2, H, W)."""
    red = image[:, 0] - image[:, 1:].mean(dim=1)
    dark = 1 - 3 * image.mean(dim=1)
    return torch.stack([2 * (red - 0.12), dark], dim=1).relu()


@torch.no_grad()
def unit(edge: float) -> GloReUnit:
    """Node 1 gathers red places, node 2 dark ones; the one state is redness; `edge` leads from 1 to 2."""
    made = GloReUnit(2, nodes=2, states=1, normalize=True).eval()
    made.assign.weight.copy_(torch.eye(2)[..., None, None])
    made.reduce.weight.copy_(torch.tensor([[1.0, 0.0]])[..., None, None])
    made.reason.adjacency.weight.copy_(torch.tensor([[0.0, 0.0], [edge, 0.0]])[..., None])
    for layer in (made.assign, made.reduce, made.reason):
        layer.get_parameter("bias").zero_()
    for tensor in (made.reason.weight.weight, made.extend.weight, made.norm.weight):
        tensor.fill_(1.0)
    return made


@torch.no_grad()
def added(x: Tensor, edge: float) -> Tensor:
    """What the unit adds to each position, the same in both channels: (1, 2, H, W) -> (H, W)."""
    y: Tensor = unit(edge)(x)
    return (y - x)[0, 0]


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: a picture, then without its red. Columns: picture, two nodes, added without and with edge."""
    full = picture("astronaut", SIZE)
    names = [f"{say('node', '节点')} {number}" for number in (1, 2)]
    edges = say("added,\nno edge", "加上的量\n没有边"), say("added,\n1 → 2", "加上的量\n1 → 2")
    drawn, axes = new_figure(2, 5, height=2.9)
    most = added(features(full), EDGE).max().item()
    for row, image in enumerate((full, without_red(full))):
        x = features(image)
        nodes = unit(EDGE).attention(x)[0].view(2, *SIZE)
        panels = axes[5 * row : 5 * row + 5]
        show_image(panels[0], image, say("picture", "图像") if row == 0 else "")
        for panel, weights, title in zip(panels[1:3], nodes, names, strict=True):
            show_image(panel, weights, title if row == 0 else "", cmap=WEIGHT_MAP, vmin=0, vmax=0.8)
        for panel, edge, title in zip(panels[3:], (0.0, EDGE), edges, strict=True):
            show_image(panel, added(x, edge), title if row == 0 else "", cmap=WEIGHT_MAP, vmin=0, vmax=most)
    name_rows(axes, (say("as it is", "原图"), say("no red", "去掉红色")))
    color_bar([*axes[:3], *axes[5:8]], say)
    color_bar([*axes[3:5], *axes[8:10]], say, say("added", "加上的量"))
    return drawn
