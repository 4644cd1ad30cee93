"""One mask and its inverse on a row of handwritten digits: what the digits attend to, nothing is trained."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from figures.panels import Field, Mask, combined
from figures.style import COLORS, Say, color_bar, english, new_figure, show_image, show_weights
from snippets.foundations.masks import MaskedAttention, causal, padding

WANTED = (0, 4, 0, 4, 0, 4)  # six different pictures
EMPTY = 2  # padding on the left
SHARPNESS = 6.0
WINDOW = 2  # positions to each side
SECOND = 5  # where a second document begins


def tokens() -> Tensor:
    """Pictures of the digits behind two blank ones, flattened: (T, 64), in [0, 1]."""
    digits = load_digits()
    of = {digit: iter((digits.target == digit).nonzero()[0]) for digit in set(WANTED)}
    chosen = torch.tensor(digits.images[[next(of[digit]) for digit in WANTED]]).flatten(1) / 16
    return torch.cat([torch.zeros(EMPTY, 64, dtype=chosen.dtype), chosen])


def mask() -> Tensor:
    """Causal, and the blanks hidden: (1, 1, T, T)."""
    T = EMPTY + len(WANTED)
    return causal(T, T) & padding(torch.tensor([len(WANTED)]), T).flip(-1)


def weights(allowed: Tensor) -> Tensor:
    """Weights (T, T); the score is SHARPNESS times the correlation of two pictures."""
    x = tokens()
    x = torch.nn.functional.normalize(x - x.mean(dim=1, keepdim=True), dim=1)[None, None]  # (1, 1, T, 64)
    return MaskedAttention().attention(SHARPNESS * 8 * x, x, mask=allowed)[0, 0]  # 8 = sqrt(64)


def _digits(axes: Axes) -> None:
    """Show the digits on the left, as queries, and below, as keys."""
    T = EMPTY + len(WANTED)
    pictures = tokens().view(T, 8, 8)
    column, row = pictures.flatten(0, 1), pictures.movedim(0, 1).flatten(1)  # (8 T, 8), (8, 8 T)
    for strip, extent in ((column, (-1.7, -0.7, T - 0.5, -0.5)), (row, (-0.5, T - 0.5, T + 0.7, T - 0.3))):
        axes.imshow(strip.numpy(), cmap="gray", extent=extent)
    axes.set_xlim(-1.7, T - 0.5)
    axes.set_ylim(T + 0.7, -0.5)


def figure(say: Say = english) -> Figure:
    """Left: masks, bright = True. Right: weights. Rows ask, columns are asked; blank is padding."""
    drawn, axes = new_figure(2, 2, height=5.0)
    names = (
        (say("mask", "掩码"), say("weights", "权重")),
        (say("~mask", "反掩码"), say("weights", "权重")),
    )
    for row, allowed, (name, effect) in zip((0, 2), (mask(), ~mask()), names, strict=True):
        show_image(axes[row], allowed[0, 0].double(), name, vmin=-0.6, vmax=1.2)
        show_weights(axes[row + 1], weights(allowed), effect)
        for one in axes[row : row + 2]:
            _digits(one)
            hidden = ~mask()[0, 0]
            _outline(one, hidden)
    color_bar(axes, say)
    return drawn


def _outline(axes: Axes, hidden: Tensor) -> None:
    """Draw the border between what should be hidden and what should not."""
    for row, column in hidden.nonzero().tolist():
        for across, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            r, c = row + down, column + across
            inside = 0 <= r < len(hidden) and 0 <= c < len(hidden)
            if inside and not hidden[r, c]:
                x = [column + across / 2] * 2 if across else [column - 0.5, column + 0.5]
                y = [row + down / 2] * 2 if down else [row - 0.5, row + 0.5]
                axes.plot(x, y, color=COLORS[0], linewidth=3)


def explore(say: Say = english) -> Mask:
    """Four masks, of which any may be on; the last two digits are a second document."""
    T = EMPTY + len(WANTED)
    place = torch.arange(T)
    near = (place[:, None] - place).abs() <= WINDOW
    together = (place[:, None] < SECOND) == (place < SECOND)
    real = padding(torch.tensor([len(WANTED)]), T).flip(-1)[0, 0].expand(T, T)
    allowed = combined((causal(T, T)[0, 0], near, real, together))
    found = torch.stack([weights(one[None, None]) for one in allowed.flatten(0, -3)]).view_as(allowed)
    names = (
        say("causal", "因果"),
        say("window ±2", "窗口 ±2"),
        say("padding", "填充"),
        say("document", "文档"),
    )
    fields = Field(say("weights", "权重"), found), Field(say("mask", "掩码"), allowed.float())
    return Mask((*"␣" * EMPTY, *map(str, WANTED)), names, fields, on=(True, False, True, False))


if __name__ == "__main__":
    torch.set_printoptions(precision=2, sci_mode=False, linewidth=120)
    print(weights(mask()), weights(~mask()), sep="\n")
