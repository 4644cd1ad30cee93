"""The matrix that a state space layer stands for, its rank below the diagonal, and one output three ways."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from figures.style import COLORS, Say, color_bar, english, new_figure
from snippets.weight_assignment.self_attention.state_space_duality import state_space

TEXT = "state space model"
WORDS = TEXT.split()
T, N, CHUNK = len(TEXT), 2, 4
LETTER, SPACE, A = 1.0, 12.0, -0.125  # a letter leaves 0.88 of the state, a space 0.22
CUT = 8  # in the middle of the second word


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys (1, T, 1, N), values, steps and A: vowels have one key, consonants the other, a space has none."""
    key = torch.tensor([[letter in "aeiou", letter not in "aeiou "] for letter in TEXT]).double()
    step = torch.tensor([SPACE if letter == " " else LETTER for letter in TEXT]).double()
    rate = torch.tensor([A], dtype=torch.float64)
    return key.view(1, T, 1, N), torch.ones(1, T, 1, 1, dtype=torch.float64), step.view(1, T, 1), rate


def matrices() -> tuple[Tensor, Tensor]:
    """The mask L and the weights, (T, T) each: a column is what all tokens read of one."""
    key, one, step, rate = inputs()
    each = torch.eye(T, dtype=torch.float64).view(1, T, 1, T)
    L, _ = state_space(one, one, each / step[..., None], step, rate)
    weights, _ = state_space(key, key, each, step, rate)
    return L[0, :, 0], weights[0, :, 0]


def outputs() -> tuple[Tensor, Tensor, Tensor]:
    """One output three ways, token by token, in chunks, with the matrix: (T) each."""
    key, value, step, rate = inputs()
    steps, chunks = (state_space(key, key, value, step, rate, chunk_size=size)[0] for size in (1, CHUNK))
    return steps.flatten(), chunks.flatten(), matrices()[1] @ value.flatten()


def spectra() -> tuple[Tensor, Tensor]:
    """Singular values of the weights with which the tokens from CUT on read those before, and each other."""
    _, weights = matrices()
    return torch.linalg.svdvals(weights[CUT:, :CUT]), torch.linalg.svdvals(weights[CUT:, CUT:])


def _matrix(panel: Axes, matrix: Tensor, title: str) -> None:
    panel.imshow(matrix.numpy(), vmin=0, vmax=1)
    panel.set_title(title)
    middles = [2, 8, 14]
    panel.set_xticks(middles, WORDS)
    panel.set_yticks(middles, WORDS, rotation=90, va="center")
    panel.tick_params(length=0)
    panel.add_patch(Rectangle((-0.5, CUT - 0.5), CUT, T - CUT, fill=False, edgecolor="white", linewidth=1.5))


def figure(say: Say = english) -> Figure:
    """Above: the mask and the weights. Below: singular values of two blocks, and one output three ways."""
    drawn, axes = new_figure(2, 2, height=4.6, height_ratios=(1.6, 1))
    names = (say("mask L", "掩码 L"), say("weights", "权重"))
    for panel, matrix, name in zip(axes[:2], matrices(), names, strict=True):
        _matrix(panel, matrix, name)
    color_bar(axes[:2], say)
    left, right = axes[2:]
    below, beside = spectra()
    left.plot(range(1, len(beside) + 1), beside, "s-", color=COLORS[5], label=say("on diagonal", "对角线上"))
    left.plot(range(1, len(below) + 1), below, "o-", color=COLORS[1], label=say("below", "其下"))
    left.set_title(say("singular values", "奇异值"))
    left.set_xticks((1, 2, 5, 9))
    left.set_ylim(-0.2, 2.9)
    left.legend()
    steps, chunks, matrix = outputs()
    right.plot(matrix, color=COLORS[0], label=say("matrix", "矩阵"))
    right.plot(chunks, "o", mfc="none", ms=8, color=COLORS[1], label=say("chunks", "分块"))
    right.plot(steps, ".", color="black", label=say("steps", "逐步"))
    right.set_title(say("output", "输出"))
    right.set_xticks(range(T), TEXT)
    right.tick_params(length=0)
    right.set_ylim(0, 6)
    right.legend()
    return drawn


if __name__ == "__main__":
    L, weights = matrices()
    for name, matrix in (("mask", L), ("weights", weights)):
        ranks = [torch.linalg.matrix_rank(part).item() for part in (matrix, matrix[CUT:, :CUT])]
        print(f"rank of the {name} and of its block: {ranks}")
    print("singular values", *(values.tolist() for values in spectra()))
    steps, chunks, matrix = outputs()
    print("largest difference", max((steps - other).abs().max().item() for other in (chunks, matrix)))
