"""A small translator learns to rewrite dates: which letters each figure of the answer is read from."""

import calendar
import random
from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Matrix
from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.soft.luong_global import GlobalAttention

MONTHS = list(calendar.month_name)
PADDING = "_"  # beside padding: start of the target
CHARACTERS = PADDING + "-, 0123456789" + "".join(sorted({c for month in MONTHS for c in month}))
STEPS = 200
SHOWN = "November 21, 2026"
FIELDS = "yyyy-mm-dd"

Date = tuple[int, int, int]
"""Year, month, day."""


class Translator(nn.Module):
    """Bidirectional GRU encoder, GRU decoder, global attention from each state of the decoder."""

    def __init__(self, score: str, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(width, 2 * width, batch_first=True)
        self.start = nn.Linear(2 * width, 2 * width)
        self.attention = GlobalAttention(2 * width, 2 * width, score)
        self.read = nn.Linear(2 * width, len(CHARACTERS))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the encoder (B, S, d) and the first state of the decoder (1, B, d)."""
        lengths = (source != 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        states, last = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        return states, self.start(torch.cat([*last], dim=1)).tanh()[None]

    def decode(self, previous: Tensor, state: Tensor, states: Tensor, source: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, T, characters), weights (B, T, S) and the last state, all T states at once."""
        target, state = self.decoder(self.embedding(previous), state)
        mask = (source != 0)[:, None]
        weights = self.attention.attention(target, states, mask)
        return self.read(self.attention(target, states, mask)), weights, state

    @torch.no_grad()
    def translate(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return characters (B, T) and weights (B, T, S); each character is fed back as it was chosen."""
        states, state = self.encode(source)
        character = torch.zeros_like(source[:, :1])
        written, weights = [], []
        for _ in FIELDS:
            logits, weight, state = self.decode(character, state, states, source)
            character = logits.argmax(2)
            written.append(character)
            weights.append(weight)
        return torch.cat(written, 1), torch.cat(weights, 1)


def parts(date: Date, day_first: bool) -> list[tuple[str, str]]:
    """Return pieces of text, each with the field it tells: y, m, d or none."""
    year, month, day = date
    if day_first:
        return [(str(day), "d"), (" ", ""), (MONTHS[month], "m"), (" ", ""), (str(year), "y")]
    return [(MONTHS[month], "m"), (" ", ""), (str(day), "d"), (", ", ""), (str(year), "y")]


def encode(texts: list[str]) -> Tensor:
    """Return character numbers (B, S), zero on padding."""
    rows = [torch.tensor([CHARACTERS.index(c) for c in text]) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def draw(number: int, source: random.Random) -> tuple[list[list[tuple[str, str]]], list[str]]:
    """Draw dates from 1900 to 2099: the pieces of the written date, and year-month-day."""
    dates = [
        (source.randint(1900, 2099), source.randint(1, 12), source.randint(1, 28)) for _ in range(number)
    ]
    return (
        [parts(date, source.random() < 0.5) for date in dates],
        [f"{year}-{month:02}-{day:02}" for year, month, day in dates],
    )


def text(pieces: list[tuple[str, str]]) -> str:
    """Join the pieces of a written date."""
    return "".join(piece for piece, _ in pieces)


@cache
def train(seed: int, score: str = "dot") -> Translator:
    """Train with Adam on STEPS fresh batches of 64."""
    torch.manual_seed(seed)
    generator = random.Random(seed)
    translator = Translator(score)
    optimiser = torch.optim.Adam(translator.parameters(), lr=0.01)
    for _ in range(STEPS):
        written, dates = draw(64, generator)
        source, target = encode([text(pieces) for pieces in written]), encode(dates)
        states, state = translator.encode(source)
        logits, _, _ = translator.decode(F.pad(target, (1, -1)), state, states, source)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return translator.eval()


def measure(translator: Translator) -> dict[str, float]:
    """Return shares on 500 held-out dates: right characters, right dates, and how much of the weight of a
    year's, month's or day's figure lies on the year, month or day of the source."""
    written, dates = draw(500, random.Random("held out"))
    chosen, weights = translator.translate(encode([text(pieces) for pieces in written]))
    right = chosen == encode(dates)
    told = [[field for piece, field in pieces for _ in piece] for pieces in written]
    on_field = {
        field: torch.stack(
            [
                weights[b, [t for t, f in enumerate(FIELDS) if f == field]][
                    :, [s for s, f in enumerate(row) if f == field]
                ].sum(1)
                for b, row in enumerate(told)
            ]
        )
        .mean()
        .item()
        for field in "ymd"
    }
    return {
        "characters": right.float().mean().item(),
        "dates": right.all(1).float().mean().item(),
        **on_field,
    }


def figure(say: Say = english) -> Figure:
    """Draw rows for characters written, columns for characters read."""
    chosen, weights = train(seed=0).translate(encode([SHOWN]))
    drawing, (axis,) = new_figure(height=3.4)
    show_weights(axis, weights[0])
    axis.set_xticks(range(len(SHOWN)), SHOWN.replace(" ", "␣"))
    axis.set_yticks(range(len(FIELDS)), [CHARACTERS[c] for c in chosen[0]])
    axis.set_xlabel(say("read", "读"))
    axis.set_ylabel(say("written", "写出"))
    color_bar([axis], say)
    return drawing


def explore(say: Say = english) -> Matrix:
    """The characters of the same date."""
    chosen, (weights,) = train(seed=0).translate(encode([SHOWN]))
    written = tuple(CHARACTERS[c] for c in chosen[0])
    return Matrix(written, tuple(SHOWN.replace(" ", "␣")), (Field(say("weights", "权重"), weights),))


if __name__ == "__main__":
    for score in ("dot", "general", "concat"):
        for seed in range(3):
            print(score, seed, {k: round(v, 3) for k, v in measure(train(seed, score)).items()}, flush=True)
