"""A small Transformer learns to sort eight numbers; its decoder looks for the next one in the source."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.self_attention.transformer import Transformer

NUMBERS, LENGTH, WIDTH = 20, 8, 32
START = NUMBERS  # the token that begins every target
SHOWN = (13, 4, 17, 8, 0, 19, 11, 6)


class Sorter(nn.Module):
    """Numbers in any order in, the same numbers in rising order out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUMBERS + 1, WIDTH)
        self.transformer = Transformer(WIDTH, 1, 64, num_layers=1, dropout=0.0, norm_first=True)
        self.guess = nn.Linear(WIDTH, NUMBERS)

    def tokens(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both, the target after the start token: (B, S, WIDTH) and (B, T + 1, WIDTH)."""
        started = torch.cat([torch.full_like(source[:, :1], START), target], dim=1)
        return self.embedding(source), self.embedding(started)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score the number that follows each part of the target: (B, T + 1, NUMBERS)."""
        scores: Tensor = self.guess(self.transformer(*self.tokens(source, target)))
        return scores

    def sort(self, source: Tensor) -> Tensor:
        """Write number after number, each after those written before: (B, S)."""
        target = source[:, :0]
        for _ in range(LENGTH):
            target = torch.cat([target, self(source, target)[:, -1:].argmax(dim=-1)], dim=1)
        return target


def rows(count: int) -> Tensor:
    """Different numbers in random order: (count, LENGTH)."""
    return torch.rand(count, NUMBERS).argsort(dim=1)[:, :LENGTH]


@cache
def train(seed: int, steps: int = 500) -> Sorter:
    """Train on fresh rows with teacher forcing, some ten seconds on one core."""
    torch.manual_seed(seed)
    sorter = Sorter()
    optimiser = torch.optim.Adam(sorter.parameters())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.006 * (1 - step / steps)
        source = rows(64)
        target = source.sort(dim=1).values
        loss = F.cross_entropy(sorter(source, target[:, :-1]).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return sorter.eval()


@torch.no_grad()
def weights(sorter: Sorter, source: Tensor) -> Tensor:
    """Weights of the cross-attention while the sorted row is written: (B, outputs, inputs)."""
    target = source.sort(dim=1).values
    return sorter.transformer.attention(*sorter.tokens(source, target[:, :-1]))[:, 0, 0]


@torch.no_grad()
def measure(sorter: Sorter) -> dict[str, float]:
    """Shares in 1000 new rows: sorted without a mistake, and largest weight on the number to be written."""
    torch.manual_seed(1234)
    source = rows(1000)
    target = source.sort(dim=1).values
    looked_at = source.gather(1, weights(sorter, source).argmax(dim=-1))
    return {
        "rows sorted": (sorter.sort(source) == target).all(dim=1).double().mean().item(),
        "looks at next": (looked_at == target).double().mean().item(),
    }


def figure(say: Say = english) -> Figure:
    """Rows: numbers as they are written. Columns: numbers as they were given."""
    drawn, axes = new_figure(1, 2, height=3.3, sharey=True)
    source = torch.tensor([SHOWN])
    for axis, steps in zip(axes, (0, 500), strict=True):
        sorter = train(seed=0, steps=steps)
        share = f"{measure(sorter)['rows sorted']:.0%}"
        title = say(f"{steps} steps\n{share} sorted", f"{steps} 步\n排对 {share}")
        show_weights(axis, weights(sorter, source)[0], title)
        axis.set_xticks(range(LENGTH), map(str, SHOWN))
        axis.set_yticks(range(LENGTH), map(str, sorted(SHOWN)))
        axis.set_xlabel(say("given", "给出"))
    axes[0].set_ylabel(say("written", "写出"))
    color_bar(axes, say)
    return drawn
