"""How far each pair of features turns, and what the score of two equal vectors does with their distance."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.panels import SIGNED, Dial, Field, Slider
from figures.style import COLORS, Say, color_bar, english, new_figure
from snippets.foundations.rotary import angles, rotate

WIDTH, TOKENS = 32, 64
BASES = ((10_000.0, "10⁴", 0.25, "right"), (500_000.0, "5 · 10⁵", 0.8, "left"))
DISTANCES = torch.cat([torch.arange(1, 100), torch.logspace(2, 4.5, 300).long()])
PLACES = 12
PAIRS, BASE = 4, 100.0  # of the panel: 1, 0.32, 0.1 and 0.03 radians from token to token
SIDE = 41
FAINT = 0.25


def scores(distance: Tensor, base: float, width: int = 128) -> Tensor:
    """Score of two vectors of ones so far apart, as a share of that without rotation."""
    ones = torch.ones(1, width)
    angle = angles(distance, width, base)
    return (rotate(ones, angle.cos(), angle.sin()) * ones).mean(dim=-1)


def figure(say: Say = english) -> Figure:
    """Above: cosines of the angles. Below: the score over the distance, for two bases."""
    drawn, (above, below) = new_figure(2, 1, height=5.0, height_ratios=(1.15, 1))
    turned = angles(torch.arange(TOKENS), WIDTH).cos().T  # (pairs, tokens)
    above.imshow(turned.numpy(), cmap=SIGNED, vmin=-1, vmax=1, aspect="auto")
    above.set_xlabel(say("position", "位置"))
    above.set_ylabel(say("pair of features", "特征对"))
    above.set_yticks(range(0, WIDTH // 2, 5))
    color_bar([above], say, say("cosine of the angle", "角度的余弦"))
    for (base, name, height, side), color in zip(BASES, COLORS, strict=False):
        below.semilogx(DISTANCES, scores(DISTANCES, base), color=color)
        below.text(50, height, say(f"base {name}", f"基数 {name}"), color=color, ha=side)
    below.axhline(0, color="black", linewidth=0.5)
    below.set_ylim(-0.3, 1.05)
    below.set_xlabel(say("distance of two equal vectors", "两个相同向量的距离"))
    below.set_ylabel(say("score", "得分"))
    return drawn


def turned_pair(pair: int) -> Tensor:
    """The unit vector of a pair at each of the positions: (positions, 2)."""
    x = torch.zeros(PLACES, 2 * PAIRS)
    x[:, pair] = 1
    angle = angles(torch.arange(PLACES), 2 * PAIRS, BASE)
    return rotate(x, angle.cos(), angle.sin())[:, [pair, pair + PAIRS]]


def arrow(end: Tensor) -> Tensor:
    """Draw a line from the centre to a point of the unit circle: (SIDE, SIDE), 0 or 1."""
    centre = SIDE // 2
    line = torch.linspace(0, 0.95 * centre, 3 * SIDE)[:, None] * end
    column, row = (centre + line[:, 0]).round().long(), (centre - line[:, 1]).round().long()
    drawn = torch.zeros(SIDE, SIDE)
    drawn[row, column] = 1
    return drawn


def explore(say: Say = english) -> Dial:
    """Turn one pair of a query and a key, and see their score among those of all positions."""
    vectors = torch.stack([turned_pair(pair) for pair in range(PAIRS)])  # (pairs, positions, 2)
    table = vectors @ vectors.mT  # (pairs, positions, positions)
    place = torch.arange(PLACES)
    distance = place[:, None] - place
    as_far = distance == distance[..., None, None]  # (positions, positions, positions, positions)
    marked = table[:, None, None] * as_far.where(as_far, FAINT)
    arrows = torch.stack([torch.stack([arrow(end) for end in ends]) for ends in vectors])
    plane = torch.maximum(arrows[:, :, None], 0.5 * arrows[:, None])
    pace = angles(torch.tensor(1), 2 * PAIRS, BASE)
    names = tuple(f"{f:.2g}" for f in pace.tolist())
    sliders = (
        Slider(say("radians from token to token", "每词元转过的弧度"), names, 1),
        Slider(say("position of the query", "查询的位置"), tuple(map(str, range(PLACES))), 7),
        Slider(say("position of the key", "键的位置"), tuple(map(str, range(PLACES))), 5),
    )
    fields = (
        Field(say("query (bright) and key, turned", "转动后的查询（亮）与键"), plane, top=1.0),
        Field(say("scores; bright: the same distance", "得分；亮处距离相同"), marked, SIGNED, top=1.0),
    )
    return Dial(sliders, fields)


if __name__ == "__main__":
    for base, *_ in BASES:
        print(base, [f"{s:.3f}" for s in scores(torch.tensor([1, 10, 100, 1000, 10_000]), base)])
    print(turned_pair(1))
