"""Time and memory of the linear and delta rules by length, as benchmarks/recurrent.py measured them."""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import COLORS, Say, english, new_figure

Measured = dict[str, dict[str, list[float]]]


def names(say: Say) -> dict[str, tuple[str, str]]:
    """Name and colour of each line, from the highest to the lowest at the right."""
    return {
        "softmax": ("softmax", COLORS[0]),
        "kimi_delta": (say("Kimi delta", "Kimi 增量"), COLORS[3]),
        "gated_delta": (say("gated delta", "门控增量"), COLORS[1]),
        "delta_rule": (say("delta", "增量"), COLORS[1]),
        "decayed_linear": (say("decayed", "衰减线性"), COLORS[2]),
        "linear": (say("linear", "线性"), COLORS[2]),
    }


def draw(axes: Axes, kind: str, lengths: list[int], rules: Measured, say: Say) -> None:
    """One line for each rule, its name where it ends, at least a sixth of a power of ten apart."""
    unit = 1e-6 if kind == "bytes" else 1.0
    above = float("inf")
    known = names(say)
    for slug in sorted(known, key=lambda name: -rules[name][kind][-1]):
        name, color = known[slug]
        values = [unit * value for value in rules[slug][kind]]
        axes.loglog(lengths, values, "o-", base=10, color=color, linewidth=1.5, markersize=3.5)
        above = min(values[-1], above / 10 ** (1 / 6))
        axes.text(1.15 * lengths[-1], above, name, color=color, va="center", size=10)
    axes.set(xlim=(0.8 * lengths[0], 6 * lengths[-1]))
    axes.set_xticks(lengths[::2], [str(length) for length in lengths[::2]])
    axes.minorticks_off()


def figure(say: Say = english) -> Figure:
    """Above time, below memory; both axes are logarithmic."""
    measured = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    drawn, axes = new_figure(2, 1, height=6.0, sharex=True)
    for panel, kind in zip(axes, ("milliseconds", "bytes"), strict=True):
        draw(panel, kind, measured["setting"]["lengths"], measured["rules"], say)
    axes[0].set_ylabel(say("time [ms]", "时间 [ms]"))
    axes[1].set_ylabel(say("memory [MB]", "内存 [MB]"))
    axes[1].set_xlabel(say("tokens", "词元数"))
    return drawn
