"""Which outputs see that two tokens were exchanged, and what becomes of one key among ever more others."""

from collections.abc import Sequence

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, WEIGHT_MAP, Say, clear_row, color_bar, english, new_figure
from snippets.foundations.no_position import NoPositionAttention, NoPositionCache

TOKENS, WIDTH, TEXTS = 10, 16, 100
STACKS = ((2, False), (1, True), (2, True))  # layers, causal
LENGTHS = tuple(2**n for n in range(4, 21))
SCORE = 10.0
SLOPES = (0.08, 0.1, 0.12)


def layers(depth: int) -> list[NoPositionAttention]:
    """Random weights, twice as large as usual."""
    torch.manual_seed(0)
    made = [NoPositionAttention(WIDTH, 2).double() for _ in range(depth)]
    for parameter in nn.ModuleList(made).parameters():
        parameter.data *= 2
    return made


def read(stack: Sequence[NoPositionAttention], x: Tensor, is_causal: bool) -> Tensor:
    for layer in stack:
        x = x + layer(x, is_causal)
    return x


@torch.no_grad()
def changes(depth: int, is_causal: bool) -> Tensor:
    """Mean change of each token's output if tokens i and i + 1 are exchanged: (pairs, tokens)."""
    stack = layers(depth)
    x = torch.randn(TEXTS, TOKENS, WIDTH, dtype=torch.float64)
    before, rows = read(stack, x, is_causal), []
    for first in range(TOKENS - 1):
        order = torch.arange(TOKENS)
        order[[first, first + 1]] = order[[first + 1, first]]
        rows.append((read(stack, x[:, order], is_causal) - before[:, order]).norm(dim=-1).mean(dim=0))
    return torch.stack(rows)


@torch.no_grad()
def found(n: int, mode: str, slope: float = 0.0) -> float:
    """Weight of one key of n whose score is above that of the others."""
    layer = NoPositionAttention(1, 1, mode)
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, name in ("q_proj.weight", "out_proj.weight"))
    if mode == "learned":
        nn.init.constant_(layer.slope, slope)
    keys = torch.zeros(1, 1, n - 1, 1)
    keys[:, :, 0] = SCORE
    y, _ = layer.step(torch.ones(1, 1, 1), NoPositionCache(keys, keys / SCORE))
    return y.item()


def figure(say: Say = english) -> Figure:
    """Above: what sees an exchange. Below: one weight over the number of tokens."""
    drawn, axes = new_figure(2, 3, height=5.2, height_ratios=(2, 3))
    names = (
        say("2 layers,\nno mask", "2 层\n无掩码"),
        say("1 layer,\ncausal", "1 层\n因果"),
        say("2 layers,\ncausal", "2 层\n因果"),
    )
    for panel, (depth, is_causal), name in zip(axes[:3], STACKS, names, strict=True):
        table = changes(depth, is_causal).numpy()
        panel.imshow(table, cmap=WEIGHT_MAP, norm=PowerNorm(0.5, vmin=0, vmax=10), aspect="auto")
        panel.set_title(name)
        panel.set_xticks([])
        panel.set_yticks([])
    axes[0].set_ylabel(say("pair exchanged", "对调的一对"))
    axes[1].set_xlabel(say("output of token", "词元的输出"))
    color_bar(axes[:3], say, say("change", "变化"))
    lines = drawn.add_subplot(clear_row(axes[3:]))
    kinds = [
        (say("no growth", "不增长"), "constant", 0.0),
        ("Llama 4", "steps", 0.0),
        *((f"{slope} ln n", "learned", slope) for slope in SLOPES),
    ]
    for (name, mode, slope), color in zip(kinds, COLORS, strict=False):
        weights = [found(n, mode, slope) for n in LENGTHS]
        lines.semilogx(LENGTHS, weights, color=color)
        lower = -7 if mode == "constant" else 0  # beside its neighbour
        lines.annotate(
            name, (LENGTHS[-1], weights[-1]), (6, lower), textcoords="offset points", color=color, va="center"
        )
    lines.set_xlim(LENGTHS[0], 4e7)
    lines.set_xticks([10**2, 10**4, 10**6])
    lines.minorticks_off()
    lines.set_ylim(-0.09, 1.03)
    lines.set_xlabel(say("tokens seen, n", "看到的词元数 n"))
    lines.set_ylabel(say("weight of one key", "一个键的权重"))
    return drawn


if __name__ == "__main__":
    torch.set_printoptions(precision=3, sci_mode=False, linewidth=160)
    for depth, is_causal in STACKS:
        print(depth, is_causal, changes(depth, is_causal), sep="\n")
    for mode, slope in (("constant", 0.0), ("steps", 0.0), *(("learned", slope) for slope in SLOPES)):
        print(mode, slope, [round(found(n, mode, slope), 3) for n in LENGTHS[::4]])
