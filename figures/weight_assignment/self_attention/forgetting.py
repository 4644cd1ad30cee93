"""What a gate per token is good for: a name that is written again, and a text that starts anew."""

import functools

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.self_attention.forgetting import ForgettingAttention

KINDS = ("open", "constant", "learned")
SEEDS = (0, 1, 2)
NAMES = VALUES = 8
WIDTH = 2 * NAMES + VALUES + 1
TOKENS = 24
STEPS, BATCH, HELD_OUT = 300, 128, 2000
MOST = 6
START = 15
SHOWN = 12
GATES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
ONE = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
PLACES = tuple(range(2, SHOWN + 1))


def written_again(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Names written with a value each, often more than once, and last a token that seeks one of them.

    Returns the tokens, what is right, the last value of the name, and how often the name was written.
    """
    names = torch.randint(NAMES, (n, TOKENS), generator=generator)
    values = F.one_hot(torch.randint(VALUES, (n, TOKENS), generator=generator), VALUES).float()
    sought = names.gather(1, torch.randint(TOKENS, (n, 1), generator=generator))  # (n, 1)
    same = names == sought
    last = TOKENS - 1 - same.flip(1).int().argmax(dim=1)
    x = torch.zeros(n, TOKENS + 1, WIDTH)
    x[:, :-1, :NAMES] = F.one_hot(names, NAMES)
    x[:, -1, NAMES : 2 * NAMES] = F.one_hot(sought[:, 0], NAMES)
    x[:, :-1, 2 * NAMES : -1] = values
    return x, values[torch.arange(n), last], same.sum(dim=1)


def new_text(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Values, one of which bears a mark: a text begins. What is right is the mean value since then."""
    values = F.one_hot(torch.randint(VALUES, (n, TOKENS), generator=generator), VALUES).float()
    start = torch.randint(TOKENS, (n, 1), generator=generator)
    since = torch.arange(TOKENS) >= start
    x = torch.zeros(n, TOKENS, WIDTH)
    x[:, :, 2 * NAMES : -1] = values
    x[:, :, -1].scatter_(1, start, 1.0)
    return x, (values * since[..., None]).sum(dim=1) / since.sum(dim=1, keepdim=True), start[:, 0]


def layer(kind: str) -> ForgettingAttention:
    """One head that passes values on as they are, and learns what to compare, and its gate if it has one."""
    made = ForgettingAttention(WIDTH, 1)
    values = torch.zeros(WIDTH)
    values[2 * NAMES : -1] = 1
    made.v_proj.weight.data = values.diag()
    made.out_proj.weight.data = torch.eye(WIDTH)
    for linear in (made.v_proj, made.out_proj):
        linear.requires_grad_(False)
    if kind != "learned":
        nn.init.zeros_(made.gate_proj.weight).requires_grad_(False)
    nn.init.constant_(made.gate_proj.bias, 3.0)
    if kind == "open":
        nn.init.constant_(made.gate_proj.bias, 60.0).requires_grad_(False)
    return made


@functools.cache
def trained(kind: str, again: bool, seed: int) -> ForgettingAttention:
    """A layer that has learned one of the tasks."""
    torch.manual_seed(seed)
    generator, made = torch.Generator().manual_seed(seed), layer(kind)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 3e-2)
    for _ in range(STEPS):
        x, right, _ = (written_again if again else new_text)(BATCH, generator)
        loss = (made(x)[:, -1, 2 * NAMES : -1] - right).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.requires_grad_(False)


def unseen(seed: int) -> torch.Generator:
    """What draws the sequences that are held out."""
    return torch.Generator().manual_seed(len(SEEDS) + seed)


def hits(kind: str, seed: int) -> list[float]:
    """Share of names written once, twice and so on whose last value was found."""
    x, right, times = written_again(HELD_OUT, unseen(seed))
    hit = trained(kind, True, seed)(x)[:, -1, 2 * NAMES : -1].argmax(dim=1) == right.argmax(dim=1)
    return [hit[times == n].float().mean().item() for n in range(1, MOST + 1)]


def error(kind: str, seed: int) -> float:
    """Squared error of the mean value of a text."""
    x, right, _ = new_text(HELD_OUT, unseen(seed))
    found: float = (
        (trained(kind, False, seed)(x)[:, -1, 2 * NAMES : -1] - right).square().sum(dim=1).mean().item()
    )
    return found


def last_row(kind: str) -> Tensor:
    """Weights of the last token of a sequence whose text begins at START: (TOKENS)."""
    x, _, start = new_text(HELD_OUT, unseen(SEEDS[0]))
    return trained(kind, False, SEEDS[0]).attention(x[start == START][:1])[0, 0, -1]


def figure(say: Say = english) -> Figure:
    """Left: hits by how often a name was written. Right: weights of the last token behind a mark."""
    drawn, (left, right) = new_figure(1, 2, height=2.9)
    names = (say("open", "全开"), say("constant", "恒定"), say("per token", "逐词元"))
    for kind, name, color, mark in zip(KINDS, names, COLORS, "osx", strict=False):
        for seed in SEEDS:
            left.plot(range(1, MOST + 1), hits(kind, seed), mark + "-", color=color, lw=1, label=name)
        right.plot(range(1, TOKENS + 1), last_row(kind), mark + "-", color=color, lw=1, ms=3)
    left.set_title(say("last value found", "找到最后的值"))
    left.set_xlabel(say("times written", "写入次数"))
    left.set_xticks(range(1, MOST + 1))
    left.set_ylim(0, 1.05)
    right.axvline(START + 1, color=COLORS[-1], lw=1, ls=":")
    right.set_title(say("weight, last token", "末尾词元的权重"))
    right.set_xlabel(say("token", "词元"))
    right.set_xticks((1, START + 1, TOKENS))
    handles, labels = left.get_legend_handles_labels()
    first = handles[:: len(SEEDS)], labels[:: len(SEEDS)]
    drawn.legend(*first, loc="outside lower center", ncols=3, title=say("gate", "门"))
    return drawn


@torch.no_grad()
def weights(gate: float, closing: float, place: int) -> Tensor:
    """Of the last of twelve tokens with equal scores, if one has another gate than the rest: (12,)."""
    made = ForgettingAttention(1, 1)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(made.gate_proj.weight)
    x = torch.full((1, SHOWN, 1), gate)
    x[0, place - 1] = closing
    return made.attention(x.logit(eps=1e-7))[0, 0, -1]


def explore(say: Say = english) -> Dial:
    """What the last token gives to each for gates of all tokens, and another gate of one."""
    found = torch.stack(
        [
            torch.stack([torch.stack([weights(gate, one, place) for place in PLACES]) for one in ONE])
            for gate in GATES
        ]
    )
    sliders = (
        Slider(say("gate of all tokens", "所有词元的门"), tuple(map(str, GATES)), GATES.index(0.9)),
        Slider(say("gate of one token", "某个词元的门"), tuple(map(str, ONE)), ONE.index(0.1)),
        Slider(say("which one", "哪一个"), tuple(map(str, PLACES)), PLACES.index(6)),
    )
    labels = tuple(map(str, range(1, SHOWN + 1)))
    return Dial(sliders, (Field(say("weight", "权重"), found[..., None, :], top=1.0),), labels)


if __name__ == "__main__":
    for kind in KINDS:
        for seed in SEEDS:
            shares = ", ".join(f"{share:.3f}" for share in hits(kind, seed))
            print(f"{kind:8} seed {seed}: found {shares}; squared error {error(kind, seed):.4f}")
    x, _, _ = new_text(HELD_OUT, unseen(SEEDS[0]))
    gate, marked = trained("learned", False, SEEDS[0]).log_gate(x)[:, 0].exp(), x[..., -1] > 0
    print(f"learned gates: marked {gate[marked].mean():.3f}, others {gate[~marked].mean():.3f}")
