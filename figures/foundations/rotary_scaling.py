"""What each way of stretching does to every pair, and what a small model then reads beyond its training."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from snippets.foundations.rotary_scaling import (
    ScaledRotaryAttention,
    linear,
    ntk,
    paper_ramp,
    plain,
    yarn,
    yarn_length,
)

WIDTH, TRAINED, FACTOR = 64, 4096, 4.0
SYMBOLS, BACK = 8, 3
SHORT = 32
LENGTHS = (32, 64, 128, 256)
SEEDS = (0, 1, 2)
HEADS, HEAD_DIM, STEPS = 4, 16, 300
WAYS: dict[str, Callable[[float], tuple[Tensor, float]]] = {
    "plain": lambda factor: (plain(HEAD_DIM), 1.0),
    "linear": lambda factor: (linear(plain(HEAD_DIM), factor), 1.0),
    "NTK": lambda factor: (ntk(HEAD_DIM, factor), 1.0),
    "YaRN": lambda factor: (yarn(HEAD_DIM, factor, SHORT, fast=8.0), yarn_length(factor)),
}


class Layer(nn.Module):
    """Attention and a small network, both added to their input."""

    def __init__(self) -> None:
        super().__init__()
        width = HEADS * HEAD_DIM
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joined, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, attend: ScaledRotaryAttention) -> Tensor:
        query, key, value = self.joined(self.before(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(query, key, value).transpose(1, 2).flatten(2))
        added: Tensor = x + self.network(self.between(x))
        return added


class Model(nn.Module):
    """Two layers that say at each place which symbol stood BACK places before."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, HEADS * HEAD_DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(HEADS * HEAD_DIM, SYMBOLS)

    def forward(self, symbols: Tensor, attend: ScaledRotaryAttention) -> Tensor:
        x = self.embedding(symbols)
        for layer in self.layers:
            x = layer(x, attend)
        logits: Tensor = self.head(x)
        return logits


@cache
@torch.enable_grad()
def trained(seed: int) -> Model:
    """A model that read sequences of SHORT symbols."""
    torch.manual_seed(seed)
    model, attend = Model(), ScaledRotaryAttention(plain(HEAD_DIM))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        symbols = torch.randint(SYMBOLS, (32, SHORT))
        loss = F.cross_entropy(model(symbols, attend)[:, BACK:].flatten(0, 1), symbols[:, :-BACK].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def right(seed: int, way: str, length: int) -> float:
    """Share of right answers in the second half of sequences of this length, frequencies stretched to it."""
    torch.manual_seed(100 + seed)
    symbols = torch.randint(SYMBOLS, (32, length))
    attend = ScaledRotaryAttention(*WAYS[way](length / SHORT))
    answers = trained(seed)(symbols, attend).argmax(dim=-1)[:, length // 2 :]
    return float((answers == symbols[:, length // 2 - BACK : -BACK]).double().mean())


def stretched() -> dict[str, Tensor]:
    """Frequencies of each way over the plain ones, for heads of WIDTH features trained to TRAINED tokens."""
    old = plain(WIDTH)
    new = {
        "linear": linear(old, FACTOR),
        "NTK": ntk(WIDTH, FACTOR),
        "YaRN": yarn(WIDTH, FACTOR, TRAINED),
        "paper": paper_ramp(old, FACTOR, TRAINED),
        "Llama 3": paper_ramp(old, FACTOR, TRAINED, slow=1.0, fast=4.0),
    }
    return {name: found / old for name, found in new.items()}


def figure(say: Say = english) -> Figure:
    """Above: what becomes of each pair. Below: right answers by length, mean and range of the seeds."""
    drawn, (above, below) = new_figure(2, 1, height=5.6)
    names = {
        "paper": say("YaRN, paper", "YaRN 论文"),
        "YaRN": say("YaRN, code", "YaRN 代码"),
        "linear": say("linear", "线性"),
    }
    for (name, ratio), color in zip(stretched().items(), (*COLORS[1:4], COLORS[3], COLORS[4]), strict=True):
        style = "--" if name == "paper" else "-"
        above.plot(ratio, style, color=color, label=names.get(name, name))
    above.set_xlabel(say("pair of features, fast to slow", "特征对，由快到慢"))
    above.set_ylabel(say("new / old frequency", "新旧频率之比"))
    above.set_xlim(-1, WIDTH // 2 + 13)  # room for the names
    above.set_xticks(range(0, WIDTH // 2, 10))
    above.legend(loc="upper right", fontsize=10)
    names = {"plain": say("as trained", "不变"), "linear": say("linear", "线性")}
    for way, color in zip(WAYS, COLORS, strict=False):
        shares = torch.tensor([[right(seed, way, length) for seed in SEEDS] for length in LENGTHS])
        below.fill_between(LENGTHS, shares.amin(1), shares.amax(1), color=color, alpha=0.25, linewidth=0)
        below.semilogx(LENGTHS, shares.mean(1), color=color, marker="o", base=2)
        below.text(LENGTHS[-1] * 1.1, shares[-1].mean().item(), names.get(way, way), color=color, va="center")
    below.axhline(1 / SYMBOLS, color=COLORS[5], linewidth=1, linestyle=":")
    below.set_ylim(0, 1.05)
    below.set_xlim(right=2.1 * LENGTHS[-1])
    below.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    below.xaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel(say(f"length read, trained at {SHORT}", f"读的长度，训练时为 {SHORT}"))
    below.set_ylabel(say("right answers", "正确率"))
    return drawn


if __name__ == "__main__":
    for way in WAYS:
        print(way, [[round(right(seed, way, length), 2) for seed in SEEDS] for length in LENGTHS])
