"""One memory, one value to keep and one to forget: without a gate, with one, with a gate for each channel."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.kimi_delta import kimi_delta

TOKENS = 60
WRITES = {0: 0, 15: 1, 35: 1}  # at which token the number 1 is written, and under which of the two keys
WANTED = torch.tensor([1.0, 0.0])  # under the two keys at the end
SINGLE = [n / 1000 for n in range(900, 1001)]
CHANNELS = (1.0, 0.8)


def read(first: float, second: float) -> Tensor:
    """What stands under each of the two keys after each token, for a gate of each channel: (2, TOKENS)."""
    keys = torch.zeros(1, TOKENS, 2, 2)  # two heads with the same memory, each asked for one key
    beta = torch.zeros(1, TOKENS, 2)
    for token, key in WRITES.items():
        keys[:, token, :, key], beta[:, token] = 1, 1
    g = torch.tensor([first, second]).log().expand_as(keys)
    out, _ = kimi_delta(torch.eye(2).expand_as(keys), keys, torch.ones(1, TOKENS, 2, 1), g, beta)
    return out[0, :, :, 0].T


def errors(first: float, second: float) -> Tensor:
    """How far off both are at the end: (2,)."""
    return (read(first, second)[:, -1] - WANTED).abs()


def best() -> float:
    """The gate whose larger error is the smallest, among those that treat both channels alike."""
    return min(SINGLE, key=lambda gate: errors(gate, gate).max().item())


def figure(say: Say = english) -> Figure:
    """What is read under both keys, token by token, for three choices of gates; last, errors of one gate."""
    drawn, axes = new_figure(2, 2, height=3.9)
    names = (say("to keep", "要留"), say("to forget", "要忘"))
    gate = best()
    panels = {
        say("no gate", "无门"): (1.0, 1.0),
        say("one gate, {:.2f}", "一个门，{:.2f}").format(gate): (gate, gate),
        say("gates {:g} and {:g}", "两个门，{:g} 与 {:g}").format(*CHANNELS): CHANNELS,
    }
    for panel, (title, gates) in zip(axes, panels.items(), strict=False):
        for line, color, name in zip(read(*gates), COLORS, names, strict=False):
            panel.plot(line, color=color, label=name)
        panel.set_title(title)
        panel.set_xlabel(say("token", "词元"))
    axes[0].legend(loc="center right", handlelength=1)
    for line, color in zip(torch.stack([errors(gate, gate) for gate in SINGLE]).T, COLORS, strict=False):
        axes[3].plot(SINGLE, line, color=color)
    axes[3].set_title(say("errors of one gate", "一个门的误差"))
    axes[3].set_xlabel(say("gate", "门"))
    for panel in axes:
        panel.set_ylim(-0.05, 1.1)
        panel.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes[0].set_ylabel(say("read", "读到"))
    axes[2].set_ylabel(say("read", "读到"))
    return drawn


if __name__ == "__main__":
    gate = best()
    print(f"one gate, at best {gate:.3f}: errors {errors(gate, gate).tolist()}")
    print(f"no gate: errors {errors(1, 1).tolist()}; channel gates {CHANNELS}: {errors(*CHANNELS).tolist()}")
