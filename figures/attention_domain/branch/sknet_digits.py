"""SK units trained on digits of several sizes: the larger the digit, the more weight for 5 x 5."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from figures.style import Say, clear_row, english, new_figure, show_image
from snippets.attention_domain.branch.sknet import SelectiveKernel

CANVAS = 24
SIDES = (8, 12, 16, 24)  # of the digit, in pixels
TRAINED = 1400  # pictures; the other 397 are held out
SEEDS, STEPS, BATCH = 3, 500, 64


class Classifier(nn.Module):
    """A convolution, an SK unit, the maximum over all positions, ten classes."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.unit = SelectiveKernel(channels, groups=1, reduction=2, min_width=8)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes: (B, 1, H, W) -> (B, 10)."""
        scores: Tensor = self.head(self.unit(self.stem(x)).amax(dim=(2, 3)))
        return scores


def placed(digits: Tensor, side: int, generator: Generator) -> Tensor:
    """Enlarge digits to `side`, each somewhere on black: (n, 1, 8, 8) -> (n, 1, CANVAS, CANVAS)."""
    canvas = torch.zeros(len(digits), 1, CANVAS, CANVAS)
    corners = torch.randint(CANVAS - side + 1, (len(digits), 2), generator=generator).tolist()
    for picture, digit, (top, left) in zip(
        canvas, F.interpolate(digits, side, mode="bilinear"), corners, strict=True
    ):
        picture[:, top : top + side, left : left + side] = digit
    return canvas


@cache
def run(seed: int) -> tuple[list[float], list[float], list[Tensor]]:
    """Train, then return for each size: accuracy, mean weight of the larger kernel, one held-out picture."""
    digits, classes = load_digits(return_X_y=True)
    x = torch.from_numpy(digits / 16).float().view(-1, 1, 8, 8)
    y = torch.from_numpy(classes)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.cat([placed(x[:TRAINED], side, generator) for side in SIDES])
    names = y[:TRAINED].repeat(len(SIDES))
    held_out = [placed(x[TRAINED:], side, generator) for side in SIDES]
    model = Classifier()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        batch = torch.randint(len(pictures), (BATCH,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(pictures[batch]), names[batch]).backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        right = [(model(p).argmax(dim=1) == y[TRAINED:]).float().mean().item() for p in held_out]
        weights = [model.unit.attention(model.stem(p))[:, 1].mean().item() for p in held_out]
    return right, weights, [p[0] for p in held_out]


def figure(say: Say = english) -> Figure:
    """Above: one digit in all sizes. Below: weight of the 5 x 5 branch, a line per seed."""
    drawn, axes = new_figure(2, len(SIDES), height=4.4, height_ratios=(1, 2.4))
    curves = drawn.add_subplot(clear_row(axes[len(SIDES) :]))
    for seed in range(SEEDS):
        right, weights, pictures = run(seed)
        low, high = f"{min(right):.0%}", f"{max(right):.0%}"
        moved = say(f"{weights[0]:.2f} to {weights[-1]:.2f}", f"{weights[0]:.2f} 到 {weights[-1]:.2f}")
        label = moved + say(f" ({low} to {high} right)", f"（认对 {low} 到 {high}）")
        curves.plot(SIDES, weights, "o-", label=label)
    for panel, picture, side in zip(axes, pictures, SIDES, strict=False):
        show_image(panel, picture, f"{side} × {side}")
    curves.set_xticks(SIDES)
    curves.set_xlim(SIDES[0] - 1, SIDES[-1] + 1)
    curves.set_ylabel(say("weight of 5 × 5", "5 × 5 的权重"))
    curves.set_xlabel(say("side of the digit", "数字的边长"))
    curves.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02))
    return drawn
