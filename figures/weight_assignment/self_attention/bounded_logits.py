"""How far scores spread as weights grow, and what becomes of a cap on the wrong side of the mask."""

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from figures.style import COLORS, WEIGHT_MAP, Say, clear_row, color_bar, english, new_figure
from snippets.weight_assignment.self_attention.bounded_logits import BoundedAttention, example

TIMES = tuple(2**n for n in range(5))
CAP = 2.0
NO_CAP = 1e6
TOKENS = 12


def layer(mode: str, cap: float = 50.0, times: float = 1.0) -> BoundedAttention:
    """Random weights; those of queries and keys are so many times as large."""
    torch.manual_seed(0)
    made = BoundedAttention(64, 4, mode, cap).double().eval()
    for projection in (made.q_proj, made.k_proj):
        projection.weight.data *= times
    return made


@torch.no_grad()
def spread(mode: str, cap: float, times: float) -> float:
    """The largest score of a row minus its smallest, the largest of all rows."""
    _, (x,) = example(T=32)
    weights = layer(mode, cap, times).attention(x.double())[:, :, -1]  # (B, heads, T), of the last token
    return (weights.amax(dim=-1) / weights.amin(dim=-1)).log().max().item()


@torch.no_grad()
def orders() -> tuple[Tensor, Tensor, Tensor]:
    """Weights of one head without a cap, with one before the mask, and with one behind it: (T, T) each."""
    _, (x,) = example(T=TOKENS)
    x = 2 * x.double()
    plain, right = (layer("soft_cap", cap).attention(x)[0, 0] for cap in (NO_CAP, CAP))
    made = layer("soft_cap")
    q, k = (part(x)[0].unflatten(1, (4, -1))[:, 0] for part in (made.q_proj, made.k_proj))
    masked = (q @ k.T / 4).masked_fill(torch.ones(TOKENS, TOKENS).triu(1).bool(), -torch.inf)
    return plain, right, (CAP * torch.tanh(masked / CAP)).softmax(dim=-1)


def figure(say: Say = english) -> Figure:
    """Above: spread of the scores. Below: three orders of cap and mask."""
    drawn, axes = new_figure(2, 3, height=5.0, height_ratios=(3, 2))
    lines = drawn.add_subplot(clear_row(axes[:3]))
    kinds = (
        ("soft_cap", NO_CAP, say("plain", "普通")),
        ("soft_cap", 50.0, say("cap 50", "上限 50")),
        ("cosine", 50.0, say("cosine", "余弦")),
        ("head_norm", 50.0, say("norm", "归一化")),
    )
    for (mode, cap, name), color in zip(kinds, COLORS, strict=False):
        found = [spread(mode, cap, times) for times in TIMES]
        lines.loglog(TIMES, found, "o-", base=2, color=color)
        lines.annotate(
            name, (TIMES[-1], found[-1]), (8, 0), textcoords="offset points", color=color, va="center"
        )
    lines.set_xlim(right=40)
    lines.set_xticks(TIMES, [f"{times}" for times in TIMES])
    lines.set_yscale("log")
    lines.xaxis.set_minor_formatter(NullFormatter())
    lines.set_xlabel(say("weights of queries and keys, times", "查询与键的权重放大倍数"))
    lines.set_ylabel(say("spread of scores", "分数的跨度"))
    names = (say("mask alone", "只有掩码"), say("cap, mask", "先限后遮"), say("mask, cap", "先遮后限"))
    for panel, weights, name in zip(axes[3:], orders(), names, strict=True):
        panel.imshow(weights.numpy(), cmap=WEIGHT_MAP, norm=PowerNorm(0.5, vmin=0, vmax=1))
        panel.set_title(name)
        panel.set_xticks([])
        panel.set_yticks([])
    axes[3].set_ylabel(say("queries", "查询"))
    axes[4].set_xlabel(say("keys", "键"))
    color_bar(axes[3:], say)
    return drawn


if __name__ == "__main__":
    for mode, cap in (("soft_cap", NO_CAP), ("soft_cap", 50.0), ("cosine", 50.0), ("head_norm", 50.0)):
        print(mode, cap, [round(spread(mode, cap, times), 1) for times in TIMES])
    print("on later keys in the first row", [round(weights[0, 1:].sum().item(), 3) for weights in orders()])
