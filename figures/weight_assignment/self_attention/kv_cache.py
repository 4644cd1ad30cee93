"""What a cache holds while a word is read letter by letter, and what it saves."""

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, WEIGHT_MAP, Say, clear_row, color_bar, english, new_figure
from snippets.weight_assignment.self_attention.kv_cache import CachedAttention, KVCache, example

WORD = "mississippi"
LETTERS = sorted(set(WORD))
SHARPNESS = 6.0  # score of two equal letters
WINDOW = 4
WINDOWS = tuple(range(1, 9))
FAINT = 0.2  # a slot, whether there is a letter in it or not
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def tokens() -> Tensor:
    """The letters of the word, one-hot: (1, T, letters)."""
    return F.one_hot(torch.tensor([[LETTERS.index(letter) for letter in WORD]])).float()


def layer(window: int | None) -> CachedAttention:
    """One head that finds the same letter. Set by hand."""
    found = CachedAttention(len(LETTERS), 1, window)
    for linear in (found.q_proj, found.k_proj, found.v_proj, found.out_proj):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    found.q_proj.weight.data *= SHARPNESS * len(LETTERS) ** 0.5
    return found


@torch.no_grad()
def states(window: int | None) -> list[KVCache]:
    """The cache after each letter."""
    reader, state, kept = layer(window), None, []
    for token in tokens().split(1, dim=1):
        _, state = reader.step(token, state)
        kept.append(state)
    return kept


def multiply_adds(cached: bool) -> list[int]:
    """Of the n-th token, for each n of LENGTHS, at E = 512: with a cache, and with all computed anew."""
    layer, (x,) = example(B=1, T=max(LENGTHS), E=512, heads=8)
    counts = []
    for n in LENGTHS:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            _, state = layer.step(x[:, : n - 1])
            with FlopCounterMode(display=False) as counter:
                layer.step(x[:, n - 1 : n], state) if cached else layer(x[:, :n])
        counts.append(counter.get_total_flops() // 2)
    return counts


def _filling(axes: Axes, window: int | None, title: str, below: str) -> None:
    """Draw which letter is in which slot (column) after each step (row); its position is a colour."""
    T = len(WORD)
    shown = torch.full((T, window or T), torch.nan)
    for row, state in enumerate(states(window)):
        for slot, position in enumerate(state.position.tolist()):
            if position >= 0:
                shown[row, slot] = position
                color = "#111" if position > 0.7 * T else "#eee"
                axes.text(slot, row, WORD[position], color=color, ha="center", va="center")
    axes.imshow(shown.numpy(), cmap=WEIGHT_MAP, vmin=0, vmax=T - 1)
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.set_xticks(range(0, window or T, 2))
    axes.set_yticks(range(T), WORD)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def figure(say: Say = english) -> Figure:
    """Above: slots after each letter. Below: work of each token."""
    drawn, axes = new_figure(2, 2, height=5.2, width_ratios=(len(WORD), WINDOW + 1), height_ratios=(3, 2))
    slot = say("slot", "槽位")
    _filling(axes[0], None, say("append", "追加"), slot)
    _filling(axes[1], WINDOW, say(f"ring of {WINDOW}", f"{WINDOW} 槽的环"), slot)
    axes[0].set_ylabel(say("letter just read", "刚读入的字母"))
    color_bar(axes[:2], say, say("position", "位置"))
    work = drawn.add_subplot(clear_row(axes[2:]))
    names = say("all anew", "全部重算"), say("cache", "缓存")
    for cached, name, color in zip((False, True), names, COLORS, strict=False):
        counts = multiply_adds(cached)
        work.loglog(LENGTHS, counts, color=color)
        work.text(LENGTHS[-1], counts[-1] * 1.5, name, color=color, ha="right", va="bottom")
    work.set_ylim(top=2e10)
    work.xaxis.set_minor_formatter(NullFormatter())
    work.set_xlabel(say("number of the token", "第几个词元"))
    work.set_ylabel(say("multiply-adds", "乘加次数"))
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Dial:
    """What the newest letter reads, and where the letters are kept, for each length and each window."""
    T = len(WORD)
    weights = torch.zeros(T, len(WINDOWS), 1, T)
    slots = torch.zeros(T, len(WINDOWS), max(WINDOWS), T)
    for column, window in enumerate(WINDOWS):
        weights[:, column, 0] = layer(window).attention(tokens())[0, 0]
        slots[:, column, :window] = FAINT
        for row, state in enumerate(states(window)):
            for slot, position in enumerate(state.position.tolist()):
                if position >= 0:
                    slots[row, column, slot, position] = 1.0
    sliders = (
        Slider(say("letters read", "已读字母"), tuple(str(n + 1) for n in range(T)), T - 1),
        Slider(say("slots of the ring", "环的槽数"), tuple(map(str, WINDOWS)), WINDOWS.index(WINDOW)),
    )
    fields = (
        Field(say("weights of the newest letter", "最新字母的权重"), weights, top=1.0),
        Field(say("slots (rows) and the letters they hold", "槽位（行）与其中的字母"), slots, top=1.0),
    )
    return Dial(sliders, fields, tuple(WORD))


if __name__ == "__main__":
    for state in states(WINDOW):
        print(state.position.tolist())
    print([anew / kept for anew, kept in zip(multiply_adds(False), multiply_adds(True), strict=True)])
