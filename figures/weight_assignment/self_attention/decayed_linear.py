"""What is left of earlier tokens with three kinds of gates, and the length of the memory with and without."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, clear_row, color_bar, english, new_figure
from snippets.weight_assignment.self_attention.decayed_linear import DecayedLinearAttention, decayed_linear

T = 24
CLOSED = (8, 16)  # where the gate that tokens set lets 1 % through; 99 % elsewhere
LENGTHS = (1, 3, 10, 30, 100, 300, 1000, 3000)
SHARES = (1.0, 0.99, 0.9)  # 1 is linear attention
WIDTH = 32


def left(gates: Tensor) -> Tensor:
    """What is left of each token (columns) when another (rows) reads, for gates (T,): (T, T)."""
    ones, values = torch.ones(1, T, 1, 1), torch.eye(T)[None, :, None]
    out, _ = decayed_linear(ones, ones, values, gates[None, :, None])
    return out[0, :, 0]


def gates() -> list[Tensor]:
    """Of the first heads of eight in the two fixed modes, and as tokens might set them: (T,) each."""
    x = torch.zeros(1, T, 32)
    fixed = [DecayedLinearAttention(32, 8, mode).gates(x)[0, :, 0, 0] for mode in ("retention", "lightning")]
    own = torch.full((T,), 0.99).log()
    own[list(CLOSED)] = torch.tensor(0.01).log()
    return [*fixed, own]


def lengths(share: float) -> list[float]:
    """Norm of the memory after each of LENGTHS tokens, whose keys and values have length one."""
    generator = torch.Generator().manual_seed(0)
    k, v = F.normalize(torch.randn(2, 1, LENGTHS[-1], 1, WIDTH, generator=generator), dim=-1)
    g = torch.tensor(share).log().expand(1, LENGTHS[-1], 1)
    memories = (decayed_linear(k[:, :n], k[:, :n], v[:, :n], g[:, :n])[1] for n in LENGTHS)
    return [memory.norm().item() for memory in memories]


def figure(say: Say = english) -> Figure:
    """Above: what is left of each token. Below: how long the memory becomes."""
    drawn, axes = new_figure(2, 3, height=4.6, sharey="row", height_ratios=(2.2, 2.2))
    names = say("retention", "保留"), say("lightning", "闪电"), say("by token", "由词元定")
    for panel, gate, name in zip(axes, gates(), names, strict=False):
        panel.imshow(left(gate).numpy(), vmin=0, vmax=1)
        panel.set_title(name)
        panel.set_xlabel(say("written", "写入"))
        panel.set_xticks((0, 8, 16))
        panel.set_yticks((0, 8, 16))
    axes[0].set_ylabel(say("read", "读取"))
    color_bar(axes[:3], say, say("left", "剩余"))
    curves = drawn.add_subplot(clear_row(axes[3:]))
    for share, color, mark in zip(SHARES, COLORS, "os^", strict=False):
        label = say("no gate", "无门") if share == 1 else f"{share:g}"
        curves.loglog(LENGTHS, lengths(share), f"{mark}-", color=color, label=label)
    curves.set_xlabel(say("tokens", "词元"))
    curves.set_ylabel(say("norm of S", "S 的范数"))
    drawn.legend(*curves.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


if __name__ == "__main__":
    for share in SHARES:
        print(share, [round(length, 2) for length in lengths(share)])
