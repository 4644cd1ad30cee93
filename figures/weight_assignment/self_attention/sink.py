"""A head that has to find a partner or to say nothing: plain softmax, plus one, and a learned logit."""

import functools

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.sink import SinkAttention

MODES = ("tokens", "plus_one", "learned")
PAIRS = 6
NAMES = VALUES = 8
SEEDS = (0, 1, 2)
STEPS, BATCH, HELD_OUT = 300, 128, 1000
LOGITS = tuple(range(-4, 9))
MATCHES = tuple(range(9))


def sequences(n: int, has_partner: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of a name and a value, then a token that seeks a name: (n, PAIRS + 1, E); and what is right.

    That is the value of the pair with the name sought, or zero if there is none: (n, VALUES). The last token
    has a value, too, so that it is no help to attend to itself.
    """
    names = torch.rand(n, NAMES, generator=generator).argsort(dim=1)
    values = F.one_hot(torch.randint(VALUES, (n, PAIRS + 1), generator=generator), VALUES).float()
    place = torch.where(has_partner, torch.randint(PAIRS, (n,), generator=generator), PAIRS)
    x = torch.zeros(n, PAIRS + 1, 2 * NAMES + VALUES)
    x[:, :PAIRS, :NAMES] = F.one_hot(names[:, :PAIRS], NAMES)
    x[:, PAIRS, NAMES : 2 * NAMES] = F.one_hot(names[torch.arange(n), place], NAMES)
    x[:, :, 2 * NAMES :] = values
    return x, values[torch.arange(n), place] * has_partner[:, None]


def layer(mode: str) -> SinkAttention:
    """One head that passes values on as they are, and learns what to compare."""
    width = 2 * NAMES + VALUES
    made = SinkAttention(width, 1, mode)
    nn.init.zeros_(made.v_proj.weight)
    made.v_proj.weight.data[2 * NAMES :, 2 * NAMES :].fill_diagonal_(1)
    nn.init.eye_(made.out_proj.weight)
    for linear in (made.v_proj, made.out_proj):
        nn.init.zeros_(linear.bias)
        linear.requires_grad_(False)
    return made


@functools.cache
def outcome(mode: str, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Train; return squared error and sum of weights of the last token, with a partner and without."""
    torch.manual_seed(seed)
    generator, made = torch.Generator().manual_seed(seed), layer(mode)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 3e-2)
    for _ in range(STEPS):
        x, right = sequences(BATCH, torch.rand(BATCH, generator=generator) < 0.5, generator)
        loss = (made(x)[:, -1, 2 * NAMES :] - right).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = []
    for has_partner in (True, False):
        x, right = sequences(HELD_OUT, torch.full((HELD_OUT,), has_partner), generator)
        with torch.no_grad():
            error = (made(x)[:, -1, 2 * NAMES :] - right).square().sum(dim=1).mean()
            total = made.attention(x)[:, 0, -1].sum(dim=1).mean()
        found.append((error.item(), total.item()))
    return found[0], found[1]


def figure(say: Say = english) -> Figure:
    """Left: squared error. Right: sum of the weights. Each with three seeds, with a partner and without."""
    drawn, axes = new_figure(1, 2, height=2.9, sharex=True)
    named = (say("partner", "有配对"), say("none", "无配对"))
    for quantity, (panel, name) in enumerate(
        zip(axes, (say("squared error", "平方误差"), say("sum of weights", "权重之和")), strict=True)
    ):
        for row, (case, color) in enumerate(zip(named, COLORS, strict=False)):
            places = [place + 0.2 * row - 0.1 for place in range(len(MODES)) for _ in SEEDS]
            found = [outcome(mode, seed)[row][quantity] for mode in MODES for seed in SEEDS]
            panel.plot(places, found, "os"[row], color=color, label=case)
        panel.set_title(name)
        panel.set_xticks(
            range(len(MODES)), (say("plain", "普通"), say("plus\none", "加一"), say("learned", "可学习"))
        )
        panel.set_xlim(-0.5, len(MODES) - 0.5)
        panel.set_ylim(bottom=0)
    axes[0].set_ylim(-0.01, 0.3)
    axes[1].set_ylim(-0.04, 1.08)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


@torch.no_grad()
def weights(match: float, logit: float) -> Tensor:
    """Of the last token for six keys and itself; key 3 scores `match`, the others zero: (7,)."""
    made = SinkAttention(1, 1)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    for linear in (made.q_proj, made.k_proj):
        nn.init.ones_(linear.weight)
    made.q_proj.bias.fill_(1.0)  # the last token is zero, and asks with 1
    nn.init.constant_(made.sink, logit)
    x = torch.zeros(1, PAIRS + 1, 1)
    x[0, 2] = match
    return made.attention(x)[0, 0, -1]


def explore(say: Say = english) -> Dial:
    """What each key gets, and what the sink, for scores of the best key and logits of the sink."""
    found = torch.stack([torch.stack([weights(match, logit) for logit in LOGITS]) for match in MATCHES])
    bars = torch.cat([found, 1 - found.sum(dim=-1, keepdim=True)], dim=-1)[:, :, None]
    sliders = (
        Slider(say("score of key 3", "键 3 的分数"), tuple(map(str, MATCHES)), 4),
        Slider(
            say("logit of the sink", "汇点的对数几率"),
            tuple(f"{n}".replace("-", "\N{MINUS SIGN}") for n in LOGITS),
            LOGITS.index(0),
        ),
    )
    labels = (*map(str, range(1, PAIRS + 1)), say("itself", "自身"), say("sink", "汇点"))
    return Dial(sliders, (Field(say("weight", "权重"), bars, top=1.0),), labels)


if __name__ == "__main__":
    for mode in MODES:
        for seed in SEEDS:
            found = ", ".join(f"{error:.4f} with sum {total:.3f}" for error, total in outcome(mode, seed))
            print(f"{mode:9} seed {seed}: squared error {found}")
