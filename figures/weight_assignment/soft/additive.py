"""A small translator learns to read backwards: the alignment that additive attention finds by itself."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.soft.additive import AdditiveAttention

LETTERS = "abcdefghijkl"
PADDING = len(LETTERS)  # beside the letters: padding of the source, start of the target
SHORTEST, LONGEST = 6, 10
STEPS = 400


class Translator(nn.Module):
    """Bidirectional GRU encoder, and a GRU decoder that asks the annotations before each step.

    The letter is read from the context alone or, if `state_is_read`, from the context and the new state.
    """

    def __init__(self, state_is_read: bool = False, width: int = 32) -> None:
        super().__init__()
        self.state_is_read = state_is_read
        self.embedding = nn.Embedding(len(LETTERS) + 1, width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.start = nn.Linear(width, width)
        self.attention = AdditiveAttention(width, 2 * width, width)
        self.cell = nn.GRUCell(3 * width, width)
        self.read = nn.Linear(3 * width if state_is_read else 2 * width, len(LETTERS))

    def forward(self, source: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, letters) and weights (B, T, S); T = S.

        `previous` are the letters before each step, in training; without it the own choice is fed back.
        """
        mask = source != PADDING  # (B, S)
        lengths = mask.sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        annotations, _ = nn.utils.rnn.pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True, total_length=source.shape[1]
        )
        projected = self.attention.project(annotations)  # once for all steps
        backward = annotations[:, 0, annotations.shape[2] // 2 :]  # has read the whole sentence
        state = self.start(backward).tanh()
        letter = torch.full_like(source[:, 0], PADDING)
        logits, weights = [], []
        for t in range(source.shape[1]):
            letter = letter if previous is None else previous[:, t]
            weights.append(self.attention.attention(state, annotations, mask, projected))
            context = (weights[-1][:, None] @ annotations).squeeze(1)
            state = self.cell(torch.cat([self.embedding(letter), context], 1), state)
            logits.append(self.read(torch.cat([context, state], 1) if self.state_is_read else context))
            letter = logits[-1].argmax(1)
        return torch.stack(logits, 1), torch.stack(weights, 1)


def sentences(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random letters and the same letters reversed, both (number, LONGEST), padded at the end."""
    letters = torch.randint(len(LETTERS), (number, LONGEST), generator=generator)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (number, 1), generator=generator)
    position = torch.arange(LONGEST)
    source = letters.masked_fill(position >= lengths, PADDING)
    target = letters.gather(1, (lengths - 1 - position).clamp(min=0)).masked_fill(
        position >= lengths, PADDING
    )
    return source, target


@cache
def train(seed: int, state_is_read: bool = False) -> Translator:
    """Train with Adam on STEPS fresh batches of 64."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    translator = Translator(state_is_read)
    optimiser = torch.optim.Adam(translator.parameters(), lr=0.01)
    for _ in range(STEPS):
        source, target = sentences(64, generator)
        logits, _ = translator(source, F.pad(target, (1, -1), value=PADDING))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PADDING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return translator.eval()


def held_out() -> tuple[Tensor, Tensor]:
    """Return 500 sentences and their reversals from a seed that no training uses."""
    return sentences(500, torch.Generator().manual_seed(1000))


@torch.no_grad()
def measure(translator: Translator) -> dict[str, float]:
    """Return shares on the held-out sentences when the translator feeds back its own letters.

    letters, sentences: right ones; aligned: steps whose largest weight is on the letter that is written;
    near: on it or beside it; weight: mean weight on it; padding: largest weight on any padding.
    """
    source, target = held_out()
    logits, weights = translator(source)
    real = target != PADDING
    right = logits.argmax(2) == target
    place = (real.sum(1, keepdim=True) - 1 - torch.arange(LONGEST)).clamp(min=0)
    distance = (weights.argmax(2) - place).abs()[real]
    return {
        "letters": right[real].float().mean().item(),
        "sentences": (right | ~real).all(1).float().mean().item(),
        "aligned": (distance == 0).float().mean().item(),
        "near": (distance <= 1).float().mean().item(),
        "weight": weights.gather(2, place[..., None]).squeeze(2)[real].mean().item(),
        "padding": weights.masked_fill(real[:, None], 0).max().item(),
    }


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """Draw rows for letters written, columns for letters read, of a long and a short held-out sentence."""
    source, _ = held_out()
    lengths = (source != PADDING).sum(1)
    shown = [int((lengths == length).nonzero()[0]) for length in (LONGEST, LONGEST - 3)]
    with torch.enable_grad():
        translator = train(seed=0)
    logits, weights = translator(source[shown])
    drawing, axes = new_figure(1, 2, height=2.9)
    names = [*LETTERS, "·"]
    for axis, row, written, weight in zip(axes, source[shown], logits.argmax(2), weights, strict=True):
        length = int((row != PADDING).sum())
        show_weights(axis, weight[:length])
        axis.set_xticks(range(LONGEST), [names[i] for i in row])
        axis.set_yticks(range(length), [names[i] for i in written[:length]])
        axis.set_xlabel(say("read", "读"))
    axes[0].set_ylabel(say("written", "写出"))
    color_bar(axes, say)
    return drawing


if __name__ == "__main__":
    for state_is_read in (False, True):
        for seed in range(3):
            print(
                state_is_read, seed, {k: round(v, 4) for k, v in measure(train(seed, state_is_read)).items()}
            )
