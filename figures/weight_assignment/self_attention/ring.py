"""Which rank compares which pair of tokens, and how much each does in each round, for three layouts."""

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, color_bar, english, name_rows, new_figure, show_image
from snippets.weight_assignment.self_attention.ring import MODES, RingAttention

RANKS, TOKENS = 4, 16
EARLIER = 0.4  # brightness of pairs of the rounds before


def ring(mode: str) -> RingAttention:
    """A causal ring; what it computes depends on where the tokens are, not on what they are."""
    return RingAttention(RANKS, is_causal=True, mode=mode)


def names(say: Say) -> tuple[str, ...]:
    """The layouts, in the order of MODES."""
    return say("contiguous", "连续"), say("striped", "条带"), say("zigzag", "之字形")


def rounds(mode: str) -> Tensor:
    """In which round a pair of query and key is compared, -1 if never: (T, T)."""
    holder = torch.empty(TOKENS, dtype=torch.long)
    for rank, held in enumerate(ring(mode).positions(TOKENS).flatten(1)):
        holder[held] = rank
    met = (holder[:, None] - holder) % RANKS  # keys travel to the next rank
    return met.masked_fill(~torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(), -1)


def figure(say: Say = english) -> Figure:
    """Above the pairs in the colour of the rank that compares them, below their number by round and rank."""
    drawn, axes = new_figure(2, len(MODES), height=3.9)
    for above, below, mode, name in zip(axes, axes[len(MODES) :], MODES, names(say), strict=False):
        rank = torch.full((TOKENS, TOKENS), torch.nan)
        for number, held in enumerate(ring(mode).positions(TOKENS).flatten(1)):
            rank[held] = float(number)
        rank[rounds(mode) < 0] = torch.nan
        show_image(above, rank, name, cmap=ListedColormap(COLORS[:RANKS]), vmin=0, vmax=RANKS - 1)
        work = ring(mode).work(TOKENS)
        below.imshow(work.numpy(), vmin=0, vmax=TOKENS)
        for (row, column), pairs in zip(
            torch.cartesian_prod(*[torch.arange(RANKS)] * 2).tolist(), work.flatten().tolist(), strict=True
        ):
            below.text(
                column, row, str(pairs), ha="center", va="center", color="white" if pairs < 11 else "black"
            )
        below.set_xticks(range(RANKS), [str(number + 1) for number in range(RANKS)])
        below.set_yticks([])
        below.set_xlabel(say("rank", "进程"))
    name_rows(axes, (say("queries", "查询"), say("rounds", "轮次")))
    color_bar(axes[len(MODES) :], say, say("pairs", "对数"))
    return drawn


def explore(say: Say = english) -> Dial:
    """The pairs of one round, those before it dimmer, and what each rank has to do in it."""
    pairs, work = [], []
    for mode in MODES:
        met = rounds(mode)
        for number in range(RANKS):
            now, before = (met == number).float(), ((met >= 0) & (met < number)).float()
            pairs.append(now + EARLIER * before)
            work.append(ring(mode).work(TOKENS)[number].float())
    shape = (len(MODES), RANKS)
    fields = (
        Field(say("bright: now", "亮：本轮"), torch.stack(pairs).view(*shape, TOKENS, TOKENS), top=1.0),
        Field(
            say("pairs of each rank in this round", "本轮各进程的对数"),
            torch.stack(work).view(*shape, 1, RANKS),
            top=float(TOKENS),
        ),
    )
    shorter = say("blocks", "连续"), say("stripes", "条带"), say("zigzag", "之字形")  # beside the slider
    sliders = (
        Slider(say("layout", "布局"), shorter, 0),
        Slider(say("round", "轮次"), tuple(str(number + 1) for number in range(RANKS)), 1),
    )
    return Dial(sliders, fields, tuple(str(number + 1) for number in range(RANKS)))


if __name__ == "__main__":
    for mode in MODES:
        print(mode, ring(mode).work(TOKENS).tolist())
