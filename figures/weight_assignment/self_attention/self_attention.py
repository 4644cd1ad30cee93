"""Two layers learn to name the letter before each letter; the one without positions cannot."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Mask, combined
from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.self_attention.self_attention import SelfAttention, sinusoidal_positions

WORD = "mississippi"
LETTERS = sorted(set(WORD))
WIDTH = 32
REAL = 8  # letters that are no padding when a reader masks it


class Reader(nn.Module):
    """Letters, one self-attention layer, and a guess for every letter which one stands before it."""

    def __init__(self, positions: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), WIDTH)
        self.layer = SelfAttention(WIDTH)
        self.guess = nn.Linear(WIDTH, len(LETTERS))
        self.positions = positions

    def tokens(self, letters: Tensor) -> Tensor:
        """(B, T) -> (B, T, WIDTH)."""
        tokens: Tensor = self.embedding(letters)
        return tokens + sinusoidal_positions(letters.shape[1], WIDTH) if self.positions else tokens

    def forward(self, letters: Tensor) -> Tensor:
        """(B, T) -> (B, T, number of letters)."""
        guesses: Tensor = self.guess(self.layer(self.tokens(letters)))
        return guesses


def strings(count: int) -> Tensor:
    """Random strings of the word's letters and length: (count, T)."""
    return torch.randint(len(LETTERS), (count, len(WORD)))


@cache
def train(positions: bool, seed: int, steps: int = 400) -> Reader:
    """Train on fresh random strings, about two seconds."""
    torch.manual_seed(seed)
    reader = Reader(positions)
    optimiser = torch.optim.Adam(reader.parameters(), lr=0.01)
    for _ in range(steps):
        letters = strings(64)
        loss = F.cross_entropy(reader(letters)[:, 1:].flatten(0, 1), letters[:, :-1].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return reader.eval()


@torch.no_grad()
def accuracy(reader: Reader) -> float:
    """Share of right guesses in 1000 new strings, first letters left out."""
    torch.manual_seed(1234)
    letters = strings(1000)
    guessed: Tensor = reader(letters)[:, 1:].argmax(dim=-1)
    return (guessed == letters[:, :-1]).double().mean().item()


@torch.no_grad()
def weights(reader: Reader) -> Tensor:
    """Attention weights for the word: (T, T)."""
    letters = torch.tensor([[LETTERS.index(letter) for letter in WORD]])
    return reader.layer.attention(reader.tokens(letters))[0]


def figure(say: Say = english) -> Figure:
    """Rows: letters that ask. Columns: letters that are asked."""
    drawn, axes = new_figure(1, 2, height=3.2)
    for axis, positions in zip(axes, (False, True), strict=True):
        reader = train(positions, seed=0)
        title = say("with positions", "有位置") if positions else say("no positions", "没有位置")
        right = f"{accuracy(reader):.0%}"
        show_weights(axis, weights(reader), f"{title}\n" + say(f"{right} right", f"答对 {right}"))
        axis.set_xticks(range(len(WORD)), WORD)
        axis.set_yticks(range(len(WORD)), WORD)
        axis.set_xlabel(say("asked", "被问的字母"))
    axes[0].set_ylabel(say("asking", "提问的字母"))
    color_bar(axes, say)
    return drawn


@torch.no_grad()
def explore(say: Say = english) -> Mask:
    """The reader with positions, trained without a mask, under masks that may be on."""
    with torch.enable_grad():
        reader = train(True, seed=0)
    place = torch.arange(len(WORD))
    step = place[:, None] - place
    allowed = combined((step >= 0, step.abs() <= 1, (place < REAL).expand_as(step)))
    tokens = reader.tokens(torch.tensor([[LETTERS.index(letter) for letter in WORD]]))
    found = torch.stack([reader.layer.attention(tokens, one[None])[0] for one in allowed.flatten(0, -3)])
    fields = (
        Field(say("weights", "权重"), found.view_as(allowed)),
        Field(say("mask", "掩码"), allowed.float()),
    )
    names = say("causal", "因果"), say("window ±1", "窗口 ±1"), say("padding", "填充")
    return Mask(tuple(WORD), names, fields, on=(True, False, False))
