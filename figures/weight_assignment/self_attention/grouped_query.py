"""Which head of keys each query head reads what a decoder keeps, and what becomes of pooled heads."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.grouped_query import GroupedQueryAttention, example

HEADS = 8
KV_HEADS = (8, 2, 1)
BACK = (0, 2, 4, 6)  # tokens that each of four heads looks back
TOKENS = 10
SHARPNESS = 12.0
SHARES = (0.0, 0.5, 1.0)  # of the way back that the keys go


@torch.no_grad()
def readers(kv_heads: int) -> Tensor:
    """Which query heads notice that a head of keys has changed: (heads, kv_heads), bool."""
    layer, (x,) = example(heads=HEADS, kv_heads=kv_heads)
    before = layer.attention(x)
    columns = []
    for weight in layer.k_proj.weight.unflatten(0, (kv_heads, -1)):
        weight += 1
        columns.append((layer.attention(x) != before).flatten(2).any(dim=2).any(dim=0))
        weight -= 1
        before = layer.attention(x)
    return torch.stack(columns, dim=1)


@torch.no_grad()
def numbers_kept(kv_heads: int) -> int:
    """How many numbers a decoder keeps of one token."""
    layer, (x,) = example(B=1, T=1, heads=HEADS, kv_heads=kv_heads)
    return sum(kept.numel() for kept in layer.step(x)[1])


def draw_heads(axes: Axes, reads: Tensor, color: str) -> None:
    """Query heads above, heads of keys and values below, a line where one reads the other."""
    heads, kv_heads = reads.shape
    place = [(number + 0.5) * heads / kv_heads - 0.5 for number in range(kv_heads)]
    for query, key in reads.nonzero().tolist():
        axes.plot([query, place[key]], [1, 0], color=color, linewidth=1, zorder=0)
    axes.plot(range(heads), [1] * heads, "o", color="#808080")
    axes.plot(place, [0] * kv_heads, "s", color=color, markersize=7)
    axes.set_xlim(-1, heads)
    axes.set_ylim(-0.3, 1.3)
    axes.axis("off")


def figure(say: Say = english) -> Figure:
    """Three layers with eight query heads, and a bar for what each keeps of a token."""
    drawing, axes = new_figure(2, 3, height=3.3, sharey="row", height_ratios=(2, 1.4))
    titles = (say("multi-head", "多头"), say("grouped-query", "分组查询"), say("multi-query", "多查询"))
    for column, (kv_heads, title, color) in enumerate(zip(KV_HEADS, titles, COLORS, strict=False)):
        heads, bar = axes[column], axes[3 + column]
        draw_heads(heads, readers(kv_heads), color)
        heads.set_title(title)
        kept = numbers_kept(kv_heads)
        bar.bar([0], [kept], color=color, width=0.6)
        bar.annotate(str(kept), (0, kept), (0, 2), textcoords="offset points", ha="center")
        bar.set_xlim(-1, 1)
        bar.set_xticks([])
        bar.spines["left"].set_visible(False)
        bar.tick_params(left=False, labelleft=False)
    axes[3].set_ylim(0, 1.3 * numbers_kept(HEADS))
    for name, height in ((say("queries", "查询"), 1.0), (say("keys,\nvalues", "键、值"), 0.0)):
        axes[0].annotate(name, (-1.2, height), ha="right", va="center", annotation_clip=False)
    axes[3].set_ylabel(say("numbers kept", "保留的数"))
    return drawing


@torch.no_grad()
def layer(share: float) -> GroupedQueryAttention:
    """Four heads that look back, set by hand: partly the queries turn there, partly the keys turn here."""
    width = len(BACK) * TOKENS
    made = GroupedQueryAttention(width, len(BACK), len(BACK)).eval()
    eye = torch.eye(TOKENS)
    for projection in (made.q_proj, made.k_proj):
        nn.init.zeros_(projection.weight)
    for head, back in enumerate(BACK):
        rows, turned = slice(head * TOKENS, (head + 1) * TOKENS), round(share * back)
        made.q_proj.weight[rows, :TOKENS] = SHARPNESS * TOKENS**0.5 * eye.roll(turned - back, 0)
        made.k_proj.weight[rows, :TOKENS] = eye.roll(turned, 0)
    return made


@torch.no_grad()
def maps(share: float, kv_heads: int) -> Tensor:
    """Weights (heads, T, T) of the layer with so many heads of keys left."""
    x = nn.functional.pad(torch.eye(TOKENS), (0, (len(BACK) - 1) * TOKENS))[None]
    return layer(share).pooled(kv_heads).attention(x)[0]


def explore(say: Say = english) -> Dial:
    """Pool the heads, and say whether they differ in their queries or in their keys."""
    counts = (4, 2, 1)
    found = torch.stack([torch.stack([maps(share, count) for share in SHARES]) for count in counts])
    names = (say("queries", "查询"), say("both", "两者"), say("keys", "键"))
    sliders = (
        Slider(say("heads of keys", "键的头数"), tuple(map(str, counts)), 0),
        Slider(say("heads differ in", "各头之别在于"), names, len(names) - 1),
    )
    fields = (
        Field(say(f"head {head + 1}", f"头 {head + 1}"), found[:, :, head], top=1.0)
        for head in range(len(BACK))
    )
    return Dial(sliders, tuple(fields))


if __name__ == "__main__":
    for kv_heads in KV_HEADS:
        print(kv_heads, readers(kv_heads).int().argmax(1).tolist(), numbers_kept(kv_heads))
    for kv_heads in (4, 2, 1):
        right = [maps(1.0, kv_heads)[head, 8, 8 - back].item() for head, back in enumerate(BACK)]
        print(f"{kv_heads} heads of keys: weight of the token that each head looks for {right}")
