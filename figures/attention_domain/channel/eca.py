"""One ECA layer, kernel set by hand, on channels that are edge directions, in order and shuffled."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor

from figures.style import COLORS, Say, english, new_figure, show_image
from snippets.attention_domain.channel.eca import ECALayer

SIZE, DIRECTIONS, REACH = 128, 16, 12


def wall() -> Tensor:
    """A brick wall, its long joints upright: (1, 1, SIZE, SIZE) in [0, 1]."""
    return F.interpolate(
        torch.from_numpy(data.brick()[None, None, :384, :384] / 255).float(), SIZE, mode="area"
    )


def angles() -> Tensor:
    """Directions of the edges in degrees, 0 for an edge like –, 90 for one like |: -45 to 135."""
    return torch.arange(DIRECTIONS) * 180 / DIRECTIONS - 45


def edges(x: Tensor) -> Tensor:
    """Strength of the edges in each direction: (B, 1, H, W) -> (B, DIRECTIONS, H, W)."""
    side = torch.arange(-REACH, REACH + 1.0)
    down, right = torch.meshgrid(side, side, indexing="ij")
    angle = torch.deg2rad(angles())[:, None, None]
    along = right * angle.cos() - down * angle.sin()
    across = right * angle.sin() + down * angle.cos()
    filters = across * torch.exp(-across.square() / 4 - along.square() / 50)
    filters = filters[:, None] / filters[0].abs().sum()
    return F.conv2d(F.pad(x, (REACH,) * 4, mode="replicate"), filters).abs()


@torch.no_grad()
def layer() -> ECALayer:
    """A layer that opens the gate of a channel whose mean exceeds that of the channels beside it."""
    eca = ECALayer(DIRECTIONS)  # k = 3
    eca.conv.weight.copy_(torch.tensor([[[-10.0, 20.0, -10.0]]]))
    return eca


@torch.no_grad()
def gates() -> tuple[Tensor, Tensor, Tensor]:
    """Means of the channels, their gates in order, and their gates when the layer gets them shuffled."""
    x, eca = edges(wall()), layer()
    x = x / x.mean()
    order = torch.randperm(DIRECTIONS, generator=torch.Generator().manual_seed(0))
    shuffled = eca.attention(x[:, order])[:, order.argsort()]
    return x.mean((0, 2, 3)), eca.attention(x).flatten(), shuffled.flatten()


def figure(say: Say = english) -> Figure:
    """The wall; means (line) and gates (bars) of the directions, in order and from the shuffled list."""
    means, *both = gates()
    drawn, axes = new_figure(1, 3, height=2.6, width_ratios=(1, 1.3, 1.3))
    show_image(axes[0], wall(), "x")
    titles = say("in order", "按顺序"), say("shuffled", "打乱")
    for shown, heights, title in zip(axes[1:], both, titles, strict=True):
        shown.bar(range(DIRECTIONS), heights, width=0.8, color=COLORS[1], label=say("gate", "门控"))
        shown.plot(means / means.max(), color=COLORS[0], label=say("mean", "均值"))
        shown.set_title(title)
        shown.set_xticks(range(0, DIRECTIONS, DIRECTIONS // 4), ["\\", "–", "/", "|"])
        shown.set_yticks([0, 1])
    drawn.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn
