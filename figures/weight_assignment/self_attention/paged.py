"""Sequences come, fork and end in one pool of pages; how much of it holds tokens."""

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, PercentFormatter
from torch import Tensor

from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.paged import PagedAttention, PagedCache

PAGE = 4
SHARED = COLORS[5]
LONGEST = 2048
SIZES = tuple(2**n for n in range(12))
MARKED = (16, LONGEST)


class Event(NamedTuple):
    """What happens in one step.

    Attributes:
        said: in English and in Chinese.
        names: of the sequences after it.
        rows: where each of them was before, -1 if it is new.
        counts: how many tokens each of them reads.
    """

    said: tuple[str, str]
    names: str
    rows: tuple[int, ...]
    counts: tuple[int, ...]


EVENTS = (
    Event(("A comes", "A 到来"), "A", (-1,), (6,)),
    Event(("B comes", "B 到来"), "AB", (0, -1), (1, 9)),
    Event(("A forks", "A 分叉"), "ACB", (0, 0, 1), (0, 0, 1)),
    Event(("all read 1", "各读 1 个"), "ACB", (0, 1, 2), (1, 1, 1)),
    Event(("all read 1", "各读 1 个"), "ACB", (0, 1, 2), (1, 1, 1)),
    Event(("B ends", "B 结束"), "AC", (0, 1), (1, 1)),
    Event(("D comes", "D 到来"), "ACD", (0, 1, -1), (1, 1, 7)),
)


@torch.no_grad()
def story() -> list[PagedCache]:
    """The cache after each event."""
    torch.manual_seed(0)
    layer = PagedAttention(8, 2, PAGE)
    _, state = layer.step(torch.randn(1, EVENTS[0].counts[0], 8))
    kept = [state]
    for event in EVENTS[1:]:
        x = torch.randn(len(event.rows), max(1, *event.counts), 8)
        _, state = layer.step(x, state.take(event.rows), torch.tensor(event.counts))
        kept.append(state)
    return kept


def used(lengths: Tensor, size: int) -> float:
    """Share of the places in pages of this size that hold a token."""
    pages = (lengths + size - 1) // size
    return (lengths.sum() / (pages.sum() * size)).item()


def lengths() -> Tensor:
    """A thousand lengths as requests may have them, drawn: most short, some long, none above LONGEST."""
    drawn = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    return (5.5 + drawn).exp().round().clamp(1, LONGEST)


def _pool(axes: Axes, say: Say) -> None:
    """Draw who holds each page (column) after each event (row), and how many tokens are in it."""
    states = story()
    for row, (state, event) in enumerate(zip(states, EVENTS, strict=True)):
        for page in state.users().nonzero().flatten().tolist():
            holders, places = (state.table == page).nonzero(as_tuple=True)
            names = "".join(event.names[holder] for holder in holders.tolist())
            tokens = min(PAGE, int(state.length[holders[0]]) - PAGE * int(places[0]))
            color = SHARED if len(names) > 1 else COLORS["ABCD".index(names)]
            axes.add_patch(Rectangle((page - 0.47, row - 0.44), 0.94, 0.88, color=color, linewidth=0))
            axes.text(page, row, f"{names} {tokens}", color="white", ha="center", va="center")
    axes.set_xlim(-0.5, len(states[-1].keys) - 0.5)
    axes.set_ylim(len(EVENTS) - 0.5, -0.5)
    axes.set_yticks(range(len(EVENTS)), [say(*event.said) for event in EVENTS])
    axes.set_xticks(range(len(states[-1].keys)))
    axes.tick_params(length=0)
    axes.set_xlabel(say("page of the pool", "池中的页"))


def figure(say: Say = english) -> Figure:
    """Above: letters are sequences, numbers the tokens in the page. Below: a thousand lengths."""
    drawn, (pool, share) = new_figure(2, 1, height=5.0, height_ratios=(3, 2))
    _pool(pool, say)
    shares = [used(lengths(), size) for size in SIZES]
    share.semilogx(SIZES, shares, base=2, color=COLORS[0])
    for size in MARKED:
        share.plot(size, used(lengths(), size), "o", color=COLORS[0])
        share.annotate(
            f"{size}: {used(lengths(), size):.0%}", (size, used(lengths(), size)), (-4, -4),
            textcoords="offset points", ha="right", va="top", color=COLORS[0],
        )  # fmt: skip
    share.set_ylim(0, 1.05)
    share.xaxis.set_major_formatter("{x:.0f}")
    share.xaxis.set_minor_formatter(NullFormatter())
    share.yaxis.set_major_formatter(PercentFormatter(1))
    share.set_xlabel(say("tokens in a page", "每页的词元数"))
    share.set_ylabel(say("places used", "用到的位置"))
    return drawn


if __name__ == "__main__":
    for event, state in zip(EVENTS, story(), strict=True):
        print(f"{event.said[0]}: {state.table.tolist()}, users {state.users().tolist()}")
    print(f"{lengths().mean():.0f} tokens", {size: round(used(lengths(), size), 3) for size in SIZES})
