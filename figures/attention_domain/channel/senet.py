"""One SE block, weights set by hand: it passes the edge directions that a picture is made of."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor, nn

from figures.panels import GREY, Field, Gate
from figures.style import Say, english, name_rows, new_figure, show_image
from snippets.attention_domain.channel.senet import SEBlock

SIZE = 72
DIRECTIONS = ("|", "\\", "–", "/")


def pictures() -> Tensor:
    """Brick, the same brick turned by 90 degrees, and grass: (3, 1, SIZE, SIZE) in [0, 1]."""
    brick, grass = (torch.from_numpy(p[:384, :384] / 255).float() for p in (data.brick(), data.grass()))
    stack = torch.stack([brick, brick.rot90(), grass])[:, None]
    return F.interpolate(stack, SIZE, mode="area")


def edges(x: Tensor) -> Tensor:
    """Strength of edges that run in four directions: (B, 1, H, W) -> (B, 4, H, W)."""
    across = torch.tensor([[-1.0, 0.0, 1.0]] * 3)
    diagonal = torch.tensor([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]])
    filters = torch.stack([across, diagonal, across.T, diagonal.flip(1)])[:, None]
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), filters).abs()


@torch.no_grad()
def block() -> SEBlock:
    """A block that opens the gates of the channels whose mean exceeds the mean of all channels."""
    se = SEBlock(len(DIRECTIONS), reduction=1)
    first, second = (layer for layer in se.excitation if isinstance(layer, nn.Linear))
    first.weight.copy_(torch.eye(4) - 0.25)
    first.bias.zero_()
    second.weight.copy_(60 * torch.eye(4))
    second.bias.fill_(-2)
    return se.eval()


def names(say: Say) -> tuple[str, str, str]:
    """What the pictures are called."""
    return say("wall", "砖墙"), say("turned", "转 90 度"), say("grass", "草地")


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: pictures. Columns: the picture, then each channel after its gate."""
    x = pictures()
    channels, se = edges(x), block()
    gates, gated = se.attention(channels), se(channels)
    brightest = channels.quantile(0.98).item()
    drawn, axes = new_figure(3, 5, height=3.2)
    for row in range(3):
        shown = axes[5 * row : 5 * row + 5]
        show_image(shown[0], x[row], "x" if row == 0 else "")
        for c, direction in enumerate(DIRECTIONS):
            title = f"{say('edges', '边缘')} {direction}" if row == 0 else ""
            show_image(shown[c + 1], gated[row, c], title, vmin=0, vmax=brightest)
            shown[c + 1].set_xlabel(f"{gates[row, c].item():.2f}")
    name_rows(axes, names(say))
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Gate:
    """The same pictures and gates; an open channel passes as it is."""
    channels, se = edges(pictures()), block()
    gates = se.attention(channels)  # (3, 4, 1, 1)
    top = channels.quantile(0.98).item()
    fields = []
    for c, direction in enumerate(DIRECTIONS):
        passed = torch.stack([channels[:, c], gates[:, c] * channels[:, c]], dim=1)  # (3, 2, H, W)
        own = [2 if gate == c else 1 for gate in range(len(DIRECTIONS))]
        values = passed.clamp(max=top).view(3, *own, SIZE, SIZE)
        fields.append(Field(f"{say('edges', '边缘')} {direction}", values, GREY, top=top))
    shown = Field("x", pictures().view(3, 1, 1, 1, 1, SIZE, SIZE), GREY, top=1.0)
    return Gate(names(say), DIRECTIONS, (shown, *fields), tuple(map(tuple, gates[:, :, 0, 0].tolist())))
