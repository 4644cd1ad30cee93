"""Time and memory of the spatial blocks by number of positions, as benchmarks/growth.py measured them."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import COLORS, Say, english, new_figure
from snippets.catalogue import CATALOGUE


def names(say: Say) -> dict[str, tuple[str, str]]:
    """Name and colour of each block: all pairs; a detour through fewer; no pairs; more for each pair."""
    groups = (
        {
            "non_local": say("non-local", "非局部"),
            "self_attention_2d": "SAGAN",
            "disentangled_non_local": "DNL",
        },
        {
            "criss_cross": say("criss-cross × 2", "十字交叉 × 2"),
            "asymmetric_non_local": "APNB",
            "em_attention": "EMA",
            "hamburger": "Hamburger",
            "glore": "GloRe",
        },
        {
            "global_context": "GCNet",
            "gather_excite": "GENet",
            "multi_granularity": "MGD",
        },
        {
            "attention_factors": "E1–E4",
            "psanet": "PSANet",
            "augmented_convolution": "AAConv",
        },
    )
    return {
        slug: (name, color)
        for group, color in zip(groups, COLORS, strict=False)
        for slug, name in group.items()
    }


def spread(heights: list[float], gap: float) -> list[float]:
    """Move heights up until they are `gap` apart, then all down so that their mean stays."""
    order = np.argsort(heights)
    moved = np.array(heights)
    for low, high in pairwise(order):
        moved[high] = max(moved[high], moved[low] + gap)
    return list(moved - (moved - heights).mean())


def draw(axes: Axes, kind: str, blocks: dict[str, dict[str, list[float]]], say: Say) -> None:
    """One line for each block, its name where it ends."""
    named = {slug: (CATALOGUE[slug].title.partition(":")[0], COLORS[-1]) for slug in blocks} | names(say)
    unit = 1e-6 if kind == "bytes" else 1.0
    lines = {slug: (block["positions"], unit * np.array(block[kind])) for slug, block in blocks.items()}
    for slug, (x, y) in lines.items():
        axes.loglog(x, y, "o-", base=10, color=named[slug][1], linewidth=1.5, markersize=3.5)
    low, high = np.log10(axes.get_ylim())
    right = max(x[-1] for x, _ in lines.values())
    places = spread([np.log10(y[-1]) for _, y in lines.values()], gap=(high - low) / 16)
    for (slug, (x, y)), place in zip(lines.items(), places, strict=True):
        name, color = named[slug]
        axes.plot([x[-1], 1.35 * right], [y[-1], 10**place], color=color, linewidth=0.6, alpha=0.7)
        axes.text(1.45 * right, 10**place, name, color=color, va="center", size=10)
    axes.set(xlim=(200, 6 * right))
    ticks = [x for x in max((x for x, _ in lines.values()), key=len) if x**0.5 in (16, 32, 64, 128)]
    axes.set_xticks(ticks, [f"{round(x**0.5)}²" for x in ticks])
    axes.minorticks_off()


def figure(say: Say = english) -> Figure:
    """Above time, below memory; both axes are logarithmic."""
    measured = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    drawn, axes = new_figure(2, 1, height=7.0, sharex=True)
    for panel, kind in zip(axes, ("milliseconds", "bytes"), strict=True):
        draw(panel, kind, measured["blocks"], say)
    axes[0].set_ylabel(say("time [ms]", "时间 [ms]"))
    axes[1].set_ylabel(say("memory [MB]", "内存 [MB]"))
    axes[1].set_xlabel("N = H W")
    return drawn
