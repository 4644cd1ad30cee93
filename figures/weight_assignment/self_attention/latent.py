"""What a layer of DeepSeek-V3 keeps of a token and what the next one costs: counted, without values."""

from functools import cache

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.latent import LatentAttention

HEADS, GROUPS, GROUP_DIM = 128, 8, 128
LENGTHS = tuple(2**power for power in range(8, 18))
NEW = (1, 4, 16, 64, 128, 256, 1024, 4096)
START = 4096


@cache
def layer() -> LatentAttention:
    """A layer of DeepSeek-V3, with shapes but no values."""
    with torch.device("meta"):
        return LatentAttention(7168, HEADS, 512, 128, 64, 128, query_dim=1536)


def inputs(T: int, S: int) -> tuple[Tensor, Tensor]:
    """T queries and S entries, without values."""
    q = torch.empty(1, HEADS, T, layer().head_dim + layer().rotated_dim, device="meta")
    return q, torch.empty(1, S, layer().latent_dim + layer().rotated_dim, device="meta")


def numbers_kept() -> tuple[int, int, int]:
    """Of one token and layer: keys and values of all heads, of eight as wide, and the entry of the cache."""
    _, entries = inputs(1, 1)
    whole = sum(expanded.numel() for expanded in layer()._expand(entries))
    return whole, 2 * GROUPS * GROUP_DIM, entries.numel()


@torch.no_grad()
def multiply_adds(T: int, S: int) -> tuple[int, int, int]:
    """With which T new tokens read S: expanding, absorbed, and with keys and values of all heads kept."""
    counts = []
    for read in (layer().read_expanded, layer().read_absorbed):
        with FlopCounterMode(display=False) as counter:
            read(*inputs(T, S))
        counts.append(counter.get_total_flops() // 2)
    return counts[0], counts[1], T * S * sum(numbers_kept()[:1])


def draw_kept(axes: Axes, say: Say) -> None:
    """A bar for each way to keep a token."""
    names = (
        say("keys, values", "键与值"),
        say(f"{GROUPS} groups", f"{GROUPS} 组"),
        say("latent", "潜在向量"),
    )
    colors = (COLORS[2], COLORS[5], COLORS[1])
    for place, (kept, color) in enumerate(zip(numbers_kept(), colors, strict=True)):
        axes.barh(place, kept, color=color, height=0.6)
        axes.annotate(f"{kept:,}", (kept, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.25 * max(numbers_kept()))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.set_title(say("numbers kept of a token", "每个词元保留的数"))


def figure(say: Say = english) -> Figure:
    """Above what is kept, below what a new token costs over the number of tokens kept."""
    drawing, (above, below) = new_figure(2, 1, height=4.6, height_ratios=(1, 1.7))
    draw_kept(above, say)
    found = torch.tensor([multiply_adds(1, S) for S in LENGTHS], dtype=torch.float64)
    names = (
        say("latents expanded", "展开潜在向量"),
        say("latents, absorbed", "潜在向量，吸收"),
        say("keys, values", "键与值"),
    )
    above_line, below_line = (7, (-8, 2), "right"), (4, (6, -12), "left")
    places = (above_line, above_line, below_line)
    for counts, name, color, (stop, offset, side) in zip(found.T, names, COLORS, places, strict=False):
        below.plot(LENGTHS, counts, color=color)
        at = (LENGTHS[stop], counts[stop].item())
        below.annotate(name, at, offset, textcoords="offset points", color=color, ha=side)
    below.set_xscale("log", base=2)
    below.set_yscale("log")
    below.set_xticks([2**8, 2**12, 2**16], ["256", "4096", "65,536"])
    below.set_xlabel(say("tokens kept", "保留的词元数"))
    below.set_title(say("multiply-adds of a new token", "一个新词元的乘加次数"))
    return drawing


def explore(say: Say = english) -> Dial:
    """How many tokens are kept, and how many new ones read them and themselves."""
    kept = torch.tensor(numbers_kept(), dtype=torch.float64)[[2, 2, 0]]
    lengths = torch.tensor(LENGTHS)[:, None] + torch.tensor(NEW)  # (lengths, new)
    counts = torch.tensor(
        [[multiply_adds(T, S) for T, S in zip(NEW, row, strict=True)] for row in lengths.tolist()]
    )
    sliders = (
        Slider(say("tokens kept", "保留的词元"), tuple(map(str, LENGTHS)), LENGTHS.index(START)),
        Slider(say("new tokens", "新词元"), tuple(map(str, NEW)), 0),
    )
    fields = (
        Field(say("multiply-adds, billions", "乘加次数（十亿）"), counts[:, :, None] / 1e9),
        Field(
            say("numbers kept, millions", "保留的数（百万）"), (lengths[..., None] * kept)[:, :, None] / 1e6
        ),
    )
    return Dial(
        sliders, fields, (say("expanded", "展开"), say("absorbed", "吸收"), say("keys, values", "键与值"))
    )


if __name__ == "__main__":
    print("kept:", numbers_kept())
    for S in LENGTHS:
        print(S, multiply_adds(1, S))
