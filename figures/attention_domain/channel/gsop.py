"""One GSoP block, weights set by hand, on a colour picture: it closes the channel that does not fit."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, color_bar, english, name_rows, new_figure, picture, show_image
from snippets.attention_domain.channel.gsop import GSoPBlock, covariance

SIZE = 96


def pictures() -> Tensor:
    """A picture, and the same with its red channel moved by 12 columns and 6 rows: (2, 3, SIZE, SIZE)."""
    whole = picture("astronaut", (SIZE, SIZE))
    moved = whole.clone()
    moved[:, 0] = whole[:, 0].roll((6, 12), dims=(1, 2))
    return torch.cat([whole, moved])


@torch.no_grad()
def block() -> GSoPBlock:
    """A block that opens the gate of a channel if its covariances with the others sum to more than 0.055."""
    gsop = GSoPBlock(3, width=3).eval()
    for parameter in (*gsop.mix[1].parameters(), *gsop.rows.conv.parameters(), *gsop.expand.parameters()):
        nn.init.zeros_(parameter)
    gsop.mix.get_parameter("1.weight").copy_(torch.eye(3)[:, :, None, None])
    gsop.rows.conv.weight[::4, 0] = 100 * (1 - torch.eye(3))  # the first of four filters of each row
    gsop.expand.weight[:, ::4] = torch.eye(3)
    gsop.expand.bias.fill_(-5.5)
    return gsop


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Rows: the pictures. Columns: the picture, the covariances with the gates beside them, the output."""
    x, gsop = pictures(), block()
    matrices, gates, y = covariance(gsop.mix(x).flatten(2)), gsop.attention(x).flatten(1), gsop(x)
    drawn, axes = new_figure(2, 3, height=3.6)
    for row in range(2):
        left, middle, right = axes[3 * row : 3 * row + 3]
        show_image(left, x[row], "x" if row == 0 else "")
        middle.imshow(matrices[row].numpy(), vmin=0, vmax=0.1)
        middle.set_xticks(range(3), "RGB")
        middle.set_yticks(range(3), [f"{name}  {g:.2f}" for name, g in zip("RGB", gates[row], strict=True)])
        middle.spines[:].set_visible(False)
        middle.tick_params(length=0)
        show_image(right, y[row].clamp(0, 1), "g x" if row == 0 else "")
    axes[1].set_title(say("covariance,\ngates", "协方差，\n门控"))
    name_rows(axes, (say("as it is", "原图"), say("red moved", "红色移位")))
    color_bar(axes, say, say("covariance", "协方差"))
    return drawn
