"""Which scores are computed, and how far the last token sees through layers with and without a window."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Mask, combined
from figures.style import COLORS, Say, clear_row, english, new_figure
from snippets.foundations.masks import MaskedAttention
from snippets.weight_assignment.self_attention.sliding_window import SlidingWindowAttention, example

T, W = 16, 4
REACHED = 24  # tokens in the pictures of the stacks
LOCAL, MIXED = "LLLLLL", "LLGLLG"  # L: a window, G: global
WORD = "mississippi"
SHARPNESS = 6.0  # score of two equal letters
WINDOWS = (2, 4, 8)
SEEN, COMPUTED = ListedColormap([COLORS[1]]), ListedColormap(["#80808080"])


def seen() -> Tensor:
    """Which keys (columns) the queries (rows) see: (T, T)."""
    layer, (x,) = example(T=T, W=W)
    return layer.attention(x)[0, 0] > 0


def computed() -> Tensor:
    """Which scores the blocks compute: the first W queries by themselves, then W by 2 W: (T, T)."""
    block = torch.arange(T) // W
    behind = block[:, None] - block
    return (behind == 0) | (behind == 1)


def reach(layers: str) -> Tensor:
    """Whether the last output after 1, 2, ... layers depends on each token: (layers, REACHED)."""
    torch.manual_seed(0)
    x = torch.randn(1, REACHED, 8, requires_grad=True)
    y, rows = x, []
    for kind in layers:
        y = y + SlidingWindowAttention(8, 2, W if kind == "L" else REACHED)(y)
        (gradient,) = torch.autograd.grad(y[0, -1].sum(), x, retain_graph=True)
        rows.append(gradient[0].ne(0).any(dim=1))
    return torch.stack(rows)


def _cells(axes: Axes, cells: Tensor, colors: ListedColormap) -> None:
    axes.imshow(torch.where(cells, 1.0, torch.nan).numpy(), cmap=colors, aspect="auto")
    axes.tick_params(length=0)


def _scores(axes: Axes, cells: Tensor, title: str) -> None:
    """Draw what is computed, and on it what is seen."""
    _cells(axes, cells, COMPUTED)
    _cells(axes, seen(), SEEN)
    axes.set_aspect("equal")
    axes.set_title(title)
    axes.set_xticks(range(0, T, W))
    axes.set_yticks(range(0, T, W))


def figure(say: Say = english) -> Figure:
    """Above: grey is computed, orange is seen. Below: a row for each number of layers."""
    drawn, axes = new_figure(3, 2, height=6.0, height_ratios=(2.2, 1, 1))
    _scores(axes[0], torch.ones(T, T, dtype=torch.bool), say("one mask", "一张掩码"))
    _scores(axes[1], computed(), say("blocks", "分块"))
    axes[0].set_ylabel(say("query", "查询"))
    for one in axes[:2]:
        one.set_xlabel(say("key", "键"))
    below = drawn.add_subplot(clear_row(axes[2:4])), drawn.add_subplot(clear_row(axes[4:6]))
    titles = say("all layers local", "各层都局部"), say("every third layer global", "每三层有一层全局")
    for one, layers, title in zip(below, (LOCAL, MIXED), titles, strict=True):
        _cells(one, reach(layers), SEEN)
        one.set_title(title)
        one.set_ylabel(say("layers", "层"))
        one.set_yticks(range(len(layers)), [f"{kind} {n}" for n, kind in enumerate(layers, start=1)])
        one.set_xticks(range(REACHED - 1, -1, -5), [str(n) for n in range(0, REACHED, 5)])
        one.set_xlim(-0.5, REACHED - 0.5)
        one.invert_yaxis()
    below[1].set_xlabel(say("tokens before the last", "在最后一个之前几个词元"))
    return drawn


def letters() -> Tensor:
    """The letters of the word, one-hot: (T, letters)."""
    known = sorted(set(WORD))
    return F.one_hot(torch.tensor([known.index(letter) for letter in WORD])).float()


def layer(window: int) -> SlidingWindowAttention:
    """One head that finds the same letter. Set by hand."""
    width = letters().shape[1]
    found = SlidingWindowAttention(width, 1, window)
    for linear in (found.q_proj, found.k_proj):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    found.q_proj.weight.data *= SHARPNESS * width**0.5
    return found


def masks(windows: Sequence[int] = WINDOWS) -> list[Tensor]:
    """Causal, then a window to both sides for each size: (T, T) each."""
    place = torch.arange(len(WORD))
    step = place[:, None] - place
    return [step >= 0, *(step.abs() < window for window in windows)]


@torch.no_grad()
def explore(say: Say = english) -> Mask:
    """Any of the masks at once; causal and one window are the module."""
    q = layer(1).q_proj(letters())[None, None]
    k = layer(1).k_proj(letters())[None, None]
    allowed = combined(masks())
    found = torch.stack(
        [MaskedAttention().attention(q, k, mask=one[None, None]) for one in allowed.flatten(0, -3)]
    )
    names = say("causal", "因果"), *(say(f"window {window}", f"窗口 {window}") for window in WINDOWS)
    fields = (
        Field(say("weights", "权重"), found.view_as(allowed)),
        Field(say("mask", "掩码"), allowed.float()),
    )
    return Mask(tuple(WORD), names, fields, on=(True, False, True, False))


if __name__ == "__main__":
    for layers in (LOCAL, MIXED):
        print(layers, reach(layers).sum(dim=1).tolist())
    print(f"computed {computed().sum()} of {T * T} scores, seen {seen().sum()}")
