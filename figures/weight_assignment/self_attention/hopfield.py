"""Digits completed from their upper half: by one update of a memory of digits, and by a matrix."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from figures.panels import GREY, Dial, Field, Slider
from figures.style import Say, english, name_rows, new_figure, show_image
from snippets.weight_assignment.self_attention.hopfield import HopfieldRetrieval

STORED = 100
SHOWN = (0, 1, 2, 3, 5)
BETAS = (1.0, 10.0, 100.0)
DIALLED = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STEPS = (1, 2, 3, 5)


def memory() -> tuple[Tensor, Tensor]:
    """Digits of 8 x 8 as vectors of length one, and their mean, which was taken off: (1, N, 64), (64,)."""
    digits = torch.from_numpy(load_digits().data[:STORED]).float()
    mean = digits.mean(dim=0)
    return F.normalize(digits - mean, dim=1)[None], mean


def upper(patterns: Tensor) -> Tensor:
    """The upper four rows, and zeros, which is the mean, below."""
    return patterns * (torch.arange(64) < 32)


def drawn(pattern: Tensor, mean: Tensor) -> Tensor:
    """A pattern with the mean put back, (64,) -> (8, 8) in [0, 1]; a digit's length is about 30."""
    picture = (30 * pattern + mean).clamp(0, 16) / 16
    return picture.view(8, 8)


def figure(say: Say = english) -> Figure:
    """Columns: five digits. Rows: what is given, three values of beta, a matrix, what was stored."""
    stored, mean = memory()
    right = stored[:, list(SHOWN)]
    given = upper(right)
    rows = {say("given", "给出"): given}
    rows |= {f"β = {beta:g}": HopfieldRetrieval(beta)(given, stored) for beta in BETAS}
    rows |= {say("matrix", "矩阵"): F.normalize(given @ (stored.mT @ stored), dim=2)}
    rows |= {say("stored", "存入"): right}
    drawing, axes = new_figure(len(rows), len(SHOWN), height=4.9)
    for row, patterns in enumerate(rows.values()):
        for panel, pattern in zip(axes[row * len(SHOWN) :], patterns[0], strict=False):
            show_image(panel, drawn(pattern, mean), vmin=0, vmax=1)
    for panel, digit in zip(axes, SHOWN, strict=False):
        panel.set_title(str(digit))  # the first ten digits of the data are those from 0 to 9
    name_rows(axes[:: len(SHOWN)], list(rows))
    return drawing


def completed(beta: float, steps: int) -> Tensor:
    """The first ten digits after some updates from their upper halves: (10, 8, 8)."""
    stored, mean = memory()
    found = HopfieldRetrieval(beta, steps)(upper(stored[:, :10]), stored)[0]
    return torch.stack([drawn(pattern, mean) for pattern in found])


def explore(say: Say = english) -> Dial:
    """The state after some updates, from the upper half of one of the digits."""
    pictures = torch.stack([torch.stack([completed(beta, n) for n in STEPS]) for beta in DIALLED])
    sliders = (
        Slider("β", tuple(f"{beta:g}" for beta in DIALLED), DIALLED.index(10.0)),
        Slider(say("updates", "更新次数"), tuple(map(str, STEPS)), 0),
        Slider(say("digit", "数字"), tuple(map(str, range(10))), 3),
    )
    return Dial(sliders, (Field(say("state", "状态"), pictures, colours=GREY, top=1.0),))


if __name__ == "__main__":
    stored, _ = memory()
    given = upper(stored)
    for beta in DIALLED:
        for steps in (1, 2):
            found = HopfieldRetrieval(beta, steps)(given, stored)
            hit = (found @ stored.mT).argmax(dim=2) == torch.arange(STORED)
            error = (found - stored).norm(dim=2).mean()
            print(f"beta {beta:g}, {steps} updates: {int(hit.sum())} of {STORED}, distance {error:.3f}")
    matrix = F.normalize(given @ (stored.mT @ stored), dim=2)
    hit = (matrix @ stored.mT).argmax(dim=2) == torch.arange(STORED)
    print(f"matrix: {int(hit.sum())} of {STORED}, distance {(matrix - stored).norm(dim=2).mean():.3f}")
