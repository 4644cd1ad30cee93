"""REINFORCE finds the one cell of nine that holds a digit; a baseline makes it faster."""

from functools import cache
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.style import COLORS, Say, clear_row, english, new_figure, show_image
from snippets.weight_assignment.hard.stochastic import StochasticAttention, reinforce_loss, update_baseline

CELLS = 3
TRAINING = 1400
DRAWS = 200


class Puzzle(NamedTuple):
    """Feature maps (N, 64, 3, 3), a feature per pixel of a cell; labels; cells of the digits."""

    x: Tensor
    label: Tensor
    cell: Tensor


class Reader(nn.Module):
    """A policy and a classifier that sees only the cell it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = StochasticAttention(64, 1, 32)
        self.read = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def puzzles() -> Puzzle:
    """Hide each 8 x 8 digit in one of nine cells; the others hold the shuffled pixels of other digits."""
    source = torch.Generator().manual_seed(0)
    digits = load_digits()
    n, cells = len(digits.data), CELLS * CELLS
    order = torch.randperm(n, generator=source)
    images, label = torch.tensor(digits.data / 16).float()[order], torch.tensor(digits.target)[order]
    others = images[torch.randint(n, (n, cells), generator=source)]  # (N, 9, 64)
    x = others.gather(2, torch.rand(others.shape, generator=source).argsort(2))
    cell = torch.randint(cells, (n,), generator=source)
    x[torch.arange(n), cell] = images
    return Puzzle(x.transpose(1, 2).unflatten(2, (CELLS, CELLS)), label, cell)


def question(x: Tensor) -> Tensor:
    """The decoder state of a task that asks only one thing: a constant."""
    return torch.ones(len(x), 1)


def train(reader: Reader, puzzle: Puzzle, with_baseline: bool, steps: int = 400) -> list[float]:
    """Train with REINFORCE and Adam, about a second; return the mean entropy of the policy at each step."""
    optimiser = torch.optim.Adam(reader.parameters(), lr=1e-3)
    baseline, entropy = torch.zeros(()), []
    for _ in range(steps):
        batch = torch.randint(TRAINING, (64,))
        x, label = puzzle.x[batch], puzzle.label[batch, None]
        glimpse = reader.attend.sample(x, question(x))
        reward = reader.read(glimpse.context).log_softmax(1).gather(1, label).squeeze(1)
        loss = reinforce_loss(reward, glimpse.log_prob, baseline)
        if with_baseline:
            baseline = update_baseline(baseline, reward)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        entropy.append(glimpse.entropy.mean().item())
    return entropy


def shares(x: Tensor, reader: Reader) -> list[float]:
    """How large a share of DRAWS draws each of the nine cells gets."""
    many = x.expand(DRAWS, -1, -1, -1)
    counts = reader.attend.sample(many, question(many)).location.bincount(minlength=CELLS * CELLS)
    return (counts / DRAWS).tolist()


@cache
def trained() -> tuple[Tensor, tuple[list[float], ...], tuple[list[float], ...]]:
    """A held-out picture, its shares before and after training; entropies with and without baseline."""
    puzzle = puzzles()
    shown = puzzle.x[TRAINING]
    torch.manual_seed(0)
    without = train(Reader(), puzzle, with_baseline=False)
    torch.manual_seed(0)
    reader = Reader()
    before = shares(shown, reader)
    entropy = train(reader, puzzle, with_baseline=True)
    return shown, (before, shares(shown, reader)), (entropy, without)


def show_draws(axes: Axes, x: Tensor, drawn: list[float], title: str) -> None:
    """Show a picture of nine cells; the frame of a cell is as thick as its share of the draws is large."""
    show_image(axes, x.view(8, 8, CELLS, CELLS).permute(2, 0, 3, 1).reshape(24, 24), title)
    axes.set_anchor("N")
    for cell, share in enumerate(drawn):
        corner = 8 * (cell % CELLS), 8 * (cell // CELLS)
        axes.add_patch(Rectangle(corner, 7, 7, fill=False, edgecolor=COLORS[1], linewidth=6 * share))


def figure(say: Say = english) -> Figure:
    """Draw a held-out picture with draws before and after training, and the entropy of two trainings."""
    x, (before, after), (with_baseline, without) = trained()
    drawing, (left, right, *below) = new_figure(2, 2, height=4.2)
    show_draws(left, x, before, say("before", "训练前"))
    show_draws(right, x, after, say("after", "训练后"))
    curves = drawing.add_subplot(clear_row(below))
    curves.plot(without, color=COLORS[0])
    curves.plot(with_baseline, color=COLORS[1])
    curves.set_xlabel(say("step", "步数"))
    curves.set_ylabel(say("entropy (nats)", "熵（奈特）"))
    curves.set_ylim(0, 2.7)
    curves.text(145, 1.2, say("baseline", "有基线"), color=COLORS[1], ha="right")
    curves.text(405, 2.4, say("no baseline", "无基线"), color=COLORS[0], ha="right")
    return drawing


@torch.no_grad()
def report(reader: Reader, puzzle: Puzzle) -> str:
    """Say how often held-out pictures are read in the right cell, and rightly."""
    x, label, cell = (part[TRAINING:] for part in puzzle)
    reader.eval()
    policy = reader.attend.attention(x, question(x)).flatten(1)
    hit = (policy.argmax(1) == cell).float().mean()
    probability = policy.gather(1, cell[:, None]).mean()
    correct = (reader.read(reader.attend(x, question(x))).argmax(1) == label).float().mean()
    return f"digit's cell likeliest {hit:.3f}, its mean probability {probability:.3f}, correct {correct:.3f}"


if __name__ == "__main__":
    puzzle = puzzles()
    for with_baseline in (True, False):
        for seed in range(3):
            torch.manual_seed(seed)
            reader = Reader()
            before = report(reader, puzzle)
            entropy = train(reader, puzzle, with_baseline)
            half = next((step for step, value in enumerate(entropy) if value < entropy[0] / 2), None)
            print(f"baseline {with_baseline}, seed {seed}: {before} -> {report(reader, puzzle)}")
            print(f"  entropy {entropy[0]:.3f} -> {entropy[-1]:.3f}, halved at step {half}")
