"""One photograph: what stands out in it, and where two queries look. Nothing is trained."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from figures.style import COLORS, Say, color_bar, english, new_figure, picture, show_image, show_weights
from snippets.foundations.saliency import Focus, Gate, MaxPooling

SIDE = 120
PLACES = ((72, 30), (27, 51))  # rows and columns of the two queries: the suit, the face
SHARPNESS = 20.0


def blurred(x: Tensor, radius: int) -> Tensor:
    """Mean of the square around each position: (B, C, H, W) -> (B, C, H, W)."""
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)


def features() -> Tensor:
    """The map (1, 4, H, W): the colour as a vector of length one, and how much it differs from around."""
    red, green, blue = blurred(picture("astronaut", (SIDE, SIDE)), 2).unbind(dim=1)
    colour = torch.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1)
    contrast = (colour - blurred(colour, 12)).norm(dim=1, keepdim=True)
    return torch.cat([F.normalize(_standard(colour), dim=1), _standard(contrast)], dim=1)


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(dim=(2, 3), keepdim=True)) / x.std(dim=(2, 3), keepdim=True)


@torch.no_grad()
def weights() -> tuple[Tensor, Tensor, Tensor]:
    """Gate of the contrast (H, W), the same with max pooling, and the weights of two queries (2, H, W)."""
    x = features()
    gate, focus = Gate(4), Focus(4, query_dim=3)
    gate.W.weight.zero_()
    gate.W.weight[3, 3] = 3.0
    gate.W.get_parameter("bias")[3] = -4.5  # opens at 1.5 standard deviations above the mean
    focus.W.weight.copy_(SHARPNESS * torch.eye(4, 3))  # a query asks for a colour
    query = torch.stack([x[0, :3, row, column] for row, column in PLACES])[None]
    return gate.attention(x)[0, 3], MaxPooling().attention(x)[0, 3], focus.attention(x, query)[0]


def figure(say: Say = english) -> Figure:
    """The photograph with the two places that ask, the bottom-up gates, and the two top-down maps."""
    gates, winner, focus = weights()
    drawn, (photograph, bottom_up, *top_down) = new_figure(2, 2, height=4.8)
    show_image(photograph, picture("astronaut", (SIDE, SIDE)), "x")
    show_weights(bottom_up, gates, say("bottom-up", "自下而上"))
    row, column = divmod(winner.flatten().argmax().item(), SIDE)
    bottom_up.plot(
        column, row, marker="o", markersize=16, fillstyle="none", color=COLORS[2], markeredgewidth=3
    )
    for number, (axes, place, color) in enumerate(zip(top_down, PLACES, COLORS, strict=False)):
        show_weights(axes, focus[number], say("top-down", "自上而下") + f" {number + 1}")
        for panel in (photograph, axes):
            corner = place[1] - 5.5, place[0] - 5.5
            panel.add_patch(Rectangle(corner, 10, 10, fill=False, edgecolor=color, linewidth=3))
    color_bar([photograph, bottom_up, *top_down], say)
    return drawn


if __name__ == "__main__":
    gates, winner, focus = weights()
    print(f"gates sum to {gates.sum():.0f}; {(gates > 0.5).float().mean():.1%} are open")
    print(f"queries share {torch.minimum(*focus).sum():.1%} of their weight")
    for number, found in enumerate(focus):
        ordered = found.flatten().sort(descending=True).values.cumsum(0)
        spread = f"90 % on {(ordered < 0.9).float().mean():.1%} of the positions"
        print(f"query {number + 1}: {spread}, {found[gates > 0.5].sum():.1%} behind open gates")
