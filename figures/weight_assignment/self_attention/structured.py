"""Two readers of reviews, one trained without the penalty and one with it: where their hops look."""

import random
from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.self_attention.structured import StructuredSelfAttention, penalty

GOOD, BAD = ("good", "lovely", "perfect", "fine"), ("bad", "poor", "awful", "weak")
FOOD, SERVICE = ("soup", "fish", "bread", "salad"), ("waiter", "cook", "host", "staff")
ADVERBS, JOINS = ("", "very", "really", "quite"), ("and", "but", "while")
ENDINGS = ("", "last night", "again", "as always")
PHRASES = ("the", "was", *GOOD, *BAD, *FOOD, *SERVICE, *ADVERBS, *JOINS, *ENDINGS)
WORDS = sorted({word for phrase in PHRASES for word in phrase.split()})
SHOWN = "the soup was very lovely but the waiter was really awful last night"
HOPS = 4


def review(source: random.Random) -> tuple[str, tuple[int, int]]:
    """A sentence, and whether food and service were good."""

    def clause(nouns: tuple[str, ...], good: int) -> str:
        opinion = source.choice(GOOD if good else BAD)
        return f"the {source.choice(nouns)} was {source.choice(ADVERBS)} {opinion}"

    food, service = source.randrange(2), source.randrange(2)
    clauses = [clause(FOOD, food), clause(SERVICE, service)]
    source.shuffle(clauses)
    return f"{clauses[0]} {source.choice(JOINS)} {clauses[1]} {source.choice(ENDINGS)}", (food, service)


def encode(sentences: list[str]) -> tuple[Tensor, Tensor]:
    """Word indices (B, T), zero on padding, and the mask (B, T)."""
    rows = [torch.tensor([WORDS.index(word) for word in sentence.split()]) for sentence in sentences]
    lengths = torch.tensor([len(row) for row in rows])
    words = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return words, torch.arange(words.shape[1]) < lengths[:, None]


def reviews(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words (B, T), mask (B, T) and the two answers (B, 2)."""
    source = random.Random(seed)
    sentences, answers = zip(*(review(source) for _ in range(count)), strict=True)
    return *encode(list(sentences)), torch.tensor(answers)


class Reader(nn.Module):
    """Word vectors, a bidirectional LSTM, the hops, and a linear layer on all of them."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.block = StructuredSelfAttention(2 * width, width, HOPS)
        self.answer = nn.Linear(HOPS * 2 * width, 2)

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two answers (B, 2) and the weights (B, r, T)."""
        states, _ = self.lstm(self.embedding(words))
        weights = self.block.attention(states, mask)
        return self.answer((weights @ states).flatten(1)).squeeze(1), weights


@cache
def train(coefficient: float, seed: int, steps: int = 200) -> Reader:
    """Train on 2000 reviews, a few seconds."""
    torch.manual_seed(seed)
    words, mask, answers = reviews(2000, seed)
    reader = Reader()
    optimiser = torch.optim.Adam(reader.parameters(), lr=0.01)
    for _ in range(steps):
        batch = torch.randint(len(words), (64,))
        guess, weights = reader(words[batch], mask[batch])
        loss = F.binary_cross_entropy_with_logits(guess, answers[batch].float())
        loss = loss + coefficient * penalty(weights).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return reader.eval()


@torch.no_grad()
def measure(reader: Reader) -> tuple[float, float]:
    """Share of right answers and mean penalty on 500 new reviews."""
    words, mask, answers = reviews(500, 1234)
    guess, weights = reader(words, mask)
    return ((guess > 0) == answers.bool()).double().mean().item(), penalty(weights).mean().item()


@torch.no_grad()
def hops(reader: Reader) -> Tensor:
    """Weights for the sentence that is shown: (r, T)."""
    weights: Tensor = reader(*encode([SHOWN]))[1]
    return weights[0]


def figure(say: Say = english) -> Figure:
    """Rows: hops. Columns: words."""
    drawn, axes = new_figure(2, 1, height=4.2)
    for axis, coefficient in zip(axes, (0.0, 1.0), strict=True):
        reader = train(coefficient, seed=0)
        weights = hops(reader)
        cost = penalty(weights[None]).item()
        title = say("with penalty: ", "加惩罚：") if coefficient else say("without penalty: ", "不加惩罚：")
        show_weights(axis, weights, f"{title}P = {cost:.1f}")
        axis.set_yticks(range(HOPS), [say(f"hop {hop + 1}", f"第 {hop + 1} 跳") for hop in range(HOPS)])
    axes[1].set_xticks(range(len(SHOWN.split())), SHOWN.split(), rotation=90)
    color_bar(axes, say)
    return drawn
