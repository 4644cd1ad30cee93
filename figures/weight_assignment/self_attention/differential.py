"""Two maps that share what draws every token, and what is left when one is subtracted from the other."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, clear_row, color_bar, english, new_figure
from snippets.weight_assignment.self_attention.differential import DifferentialAttention

WORDS = ("the", "cat", "on", "the", "mat", "sleeps")
SOUGHT = {"cat": "the", "on": "cat", "mat": "on", "sleeps": "cat"}  # what the first map looks for
LAYER = 8
COMMON, OWN = 1.5, 2.5  # scores: of the first word and of the word itself; of the word sought


def scores() -> tuple[Tensor, Tensor]:
    """Set by hand: both maps like the first word and the word itself; the first also what it seeks."""
    T = len(WORDS)
    both = COMMON * torch.eye(T)
    both[:, 0] += COMMON
    first = both.clone()
    for word, sought in SOUGHT.items():
        first[WORDS.index(word), WORDS.index(sought)] += OWN
    return first, both


@torch.no_grad()
def maps() -> tuple[Tensor, Tensor, Tensor]:
    """The first map, the second, and the weights of the layer: (T, T) each."""
    T = len(WORDS)
    layer = DifferentialAttention(2 * T, 1, "v1", LAYER).eval()
    nn.init.zeros_(layer.lambda_q)  # lambda is what the layer starts with
    for weight in (layer.q_proj.weight, layer.k_proj.weight):
        nn.init.zeros_(weight)
    wanted = scores()
    for number, heads in enumerate(wanted):
        rows = slice(number * T, (number + 1) * T)
        layer.q_proj.weight[rows, :T] = heads.T * T**0.5
        layer.k_proj.weight[rows, :T] = torch.eye(T)
    x = torch.eye(T, 2 * T)[None]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    first, second = (heads.masked_fill(later, -torch.inf).softmax(dim=-1) for heads in wanted)
    return first, second, layer.attention(x)[0, 0]


def figure(say: Say = english) -> Figure:
    """Above: two maps and their difference. Below: weights of the last word."""
    drawn, axes = new_figure(2, 3, height=4.6, sharey="row", height_ratios=(3, 2.4))
    found = maps()
    names = (say("map 1", "图 1"), say("map 2", "图 2"), say("difference", "差"))
    for panel, weights, name in zip(axes, found, names, strict=False):
        panel.imshow(weights.numpy(), cmap="berlin", vmin=-1, vmax=1)
        panel.set_title(name)
        panel.set_xticks(range(len(WORDS)), WORDS, rotation=90)
        panel.set_yticks(range(len(WORDS)), WORDS)
        panel.tick_params(length=0)
    color_bar(axes[:3], say)
    bars = drawn.add_subplot(clear_row(axes[3:]))
    for number, (weights, name) in enumerate(zip(found, names, strict=True)):
        places = [place + 0.27 * (number - 1) for place in range(len(WORDS))]
        bars.bar(places, weights[-1].tolist(), width=0.25, color=COLORS[number], label=name)
    bars.axhline(0, color="black", linewidth=0.8)
    bars.set_xticks(range(len(WORDS)), WORDS)
    bars.tick_params(axis="x", length=0)
    bars.set_ylabel(say("weights of sleeps", "sleeps 的权重"))
    drawn.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


if __name__ == "__main__":
    for weights in maps():
        print([round(weight, 2) for weight in weights[-1].tolist()], round(weights[-1].sum().item(), 3))
