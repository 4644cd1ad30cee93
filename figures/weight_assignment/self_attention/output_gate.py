"""What a gate made from a token can know: that nothing is asked, and not that nothing was found."""

import functools

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from figures.weight_assignment.self_attention.sink import NAMES, VALUES, sequences
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.output_gate import GatedAttention
from snippets.weight_assignment.self_attention.sink import SinkAttention

KINDS = ("plain", "gate", "sink")
SEEDS = (0, 1, 2)
STEPS, BATCH, HELD_OUT = 300, 64, 1000
WIDTH = 2 * NAMES + VALUES


def task(asks: bool, n: int, empty: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences and what is right; that is zero for the empty ones: nothing asked, or nothing to be found."""
    x, right = sequences(n, ~empty, generator)
    if not asks:
        x[empty, -1, NAMES : 2 * NAMES] = 0
    return x, right


class Layer(nn.Module):
    """One head that passes values on as they are, and learns what to compare, and its gate or sink."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner: nn.Module
        if kind == "plain":
            self.inner = MultiHeadAttention(WIDTH, 1)
        else:
            self.inner = GatedAttention(WIDTH, 1, "head") if kind == "gate" else SinkAttention(WIDTH, 1)
        values = torch.zeros(WIDTH, WIDTH)
        values[2 * NAMES :, 2 * NAMES :].fill_diagonal_(1)
        for name, weight in (("v_proj", values), ("out_proj", torch.eye(WIDTH))):
            linear = self.inner.get_submodule(name)
            linear.load_state_dict(
                {key: weight if key == "weight" else torch.zeros(WIDTH) for key in linear.state_dict()}
            )
            linear.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (
            self.inner(x, is_causal=True) if isinstance(self.inner, MultiHeadAttention) else self.inner(x)
        )
        return y[:, -1, 2 * NAMES :]


@functools.cache
def error(kind: str, asks: bool, seed: int) -> tuple[float, float]:
    """Train; return the squared error of the last token where there is a value, and where zero is right."""
    torch.manual_seed(seed)
    generator, made = torch.Generator().manual_seed(seed), Layer(kind)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 3e-2)
    for _ in range(STEPS):
        x, right = task(asks, BATCH, torch.rand(BATCH, generator=generator) < 0.5, generator)
        loss = (made(x) - right).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = []
    for empty in (False, True):
        x, right = task(asks, HELD_OUT, torch.full((HELD_OUT,), empty), generator)
        with torch.no_grad():
            found.append((made(x) - right).square().sum(dim=1).mean().item())
    return found[0], found[1]


def figure(say: Say = english) -> Figure:
    """Squared errors with three seeds: nothing asked on the left, nothing to be found on the right."""
    drawn, axes = new_figure(1, 2, height=2.9, sharey=True)
    titles = (say("nothing asked", "没有提问"), say("nothing to find", "无可寻找"))
    rows = (say("value", "有值"), say("zero", "应为零"))
    for panel, asks, title in zip(axes, (False, True), titles, strict=True):
        for row, (name, color) in enumerate(zip(rows, COLORS, strict=False)):
            places = [place + 0.2 * row - 0.1 for place in range(len(KINDS)) for _ in SEEDS]
            errors = [error(kind, asks, seed)[row] for kind in KINDS for seed in SEEDS]
            panel.plot(places, errors, "os"[row], color=color, label=name)
        panel.set_title(title)
        panel.set_xticks(range(len(KINDS)), (say("plain", "普通"), say("gate", "门"), say("sink", "汇点")))
        panel.set_xlim(-0.5, len(KINDS) - 0.5)
    axes[0].set_ylabel(say("squared error", "平方误差"))
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


if __name__ == "__main__":
    for asks in (False, True):
        for kind in KINDS:
            print(asks, kind, [[round(number, 4) for number in error(kind, asks, seed)] for seed in SEEDS])
