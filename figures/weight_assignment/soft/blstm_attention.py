"""A relation classifier reads the word that decides, but knows one relation by the absence of the others."""

import random
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import COLORS, Say, english, new_figure
from snippets.weight_assignment.soft.blstm_attention import BLSTMAttention

VERBS = (("caused", "triggered"), ("held", "contained"), ("built", "wrote"), ("entered", "reached"))
NOUNS = ("storm", "box", "poet", "town", "fire", "book", "crew", "lake", "garden", "bridge", "child")
ADJECTIVES = ("old", "small", "quiet", "new", "strange", "heavy")
OPENINGS = ("", "yesterday", "that night", "in the end", "as people say")
ADVERBS = ("", "slowly", "almost certainly", "never")
ENDINGS = ("", "again", "last year", "near the river", "for no clear reason")
PHRASES = ("the", *sum(VERBS, ()), *NOUNS, *ADJECTIVES, *OPENINGS, *ADVERBS, *ENDINGS)
WORDS = sorted({word for phrase in PHRASES for word in phrase.split()})


class Sentence(NamedTuple):
    """Words, relation, and the position of the verb, which alone tells the relation."""

    words: list[str]
    relation: int
    verb: int


def sentence(source: random.Random) -> Sentence:
    """Draw a sentence of 5 to 16 words; everything but the verb is independent of the relation."""

    def noun_phrase() -> list[str]:
        adjective = [source.choice(ADJECTIVES)] if source.random() < 0.5 else []
        return ["the", *adjective, source.choice(NOUNS)]

    relation = source.randrange(len(VERBS))
    left = [*source.choice(OPENINGS).split(), *noun_phrase(), *source.choice(ADVERBS).split()]
    right = [*noun_phrase(), *source.choice(ENDINGS).split()]
    return Sentence([*left, source.choice(VERBS[relation]), *right], relation, len(left))


def encode(sentences: list[Sentence]) -> tuple[Tensor, Tensor]:
    """Return word indices (B, T), zero on padding, and the mask (B, T)."""
    rows = [torch.tensor([WORDS.index(word) for word in s.words]) for s in sentences]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


class Classifier(nn.Module):
    """Word vectors, BLSTM attention and a linear classifier, with dropout."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), width)
        self.block = BLSTMAttention(width, width)
        self.read = nn.Linear(width, len(VERBS))

    def attention(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.block.attention(self.embedding(tokens), mask)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = F.dropout(self.embedding(tokens), 0.3, self.training)
        out: Tensor = self.read(F.dropout(self.block(x, mask), 0.3, self.training))
        return out


@cache
def train(seed: int, steps: int = 200) -> Classifier:
    """Train on 2000 sentences with Adam, about a second."""
    torch.manual_seed(seed)
    source = random.Random(seed)
    sentences = [sentence(source) for _ in range(2000)]
    tokens, mask = encode(sentences)
    relations = torch.tensor([s.relation for s in sentences])
    classifier = Classifier()
    optimiser = torch.optim.Adam(classifier.parameters(), lr=0.01)
    for _ in range(steps):
        batch = torch.randint(len(tokens), (64,))
        loss = F.cross_entropy(classifier(tokens[batch], mask[batch]), relations[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return classifier.eval()


def held_out() -> list[Sentence]:
    """500 sentences that no classifier was trained on."""
    source = random.Random("held out")
    return [sentence(source) for _ in range(500)]


def show_sentence(axes: Axes, shown: Sentence, weights: Tensor, say: Say) -> None:
    """Draw one bar for each token, from top to bottom; the verb in orange, padding named so."""
    labels = [*shown.words, *[say("padding", "填充")] * (len(weights) - len(shown.words))]
    colors = [COLORS[1] if i == shown.verb else COLORS[0] for i in range(len(labels))]
    axes.barh(range(len(labels)), weights.tolist(), color=colors)
    axes.set_yticks(range(len(labels)), labels)
    for label in axes.get_yticklabels()[len(shown.words) :]:
        label.set_color(COLORS[5])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def figure(say: Say = english) -> Figure:
    """Draw the weights over three held-out sentences: the first of a relation and of a length each."""
    wanted = ((2, 13), (1, 10), (3, 7))
    sentences = [next(s for s in held_out() if (s.relation, len(s.words)) == pair) for pair in wanted]
    weights = train(seed=0).attention(*encode(sentences))
    drawing, axes = new_figure(3, 1, height=6.6, sharex=True)
    for panel, shown, weight in zip(axes, sentences, weights, strict=True):
        show_sentence(panel, shown, weight, say)
    axes[-1].set_xlabel(say("weight", "权重"))
    return drawing


def report(seed: int) -> str:
    """Say how often held-out sentences are read rightly, and how often the verb has the largest weight."""
    sentences = held_out()
    tokens, mask = encode(sentences)
    verb = torch.tensor([s.verb for s in sentences])
    relation = torch.tensor([s.relation for s in sentences])
    classifier = train(seed)
    correct = (classifier(tokens, mask).argmax(1) == relation).float().mean()
    weights = classifier.attention(tokens, mask).detach()
    hit = (weights.argmax(1) == verb).float()
    rates = " ".join(f"{hit[relation == i].mean():.3f}" for i in range(len(VERBS)))
    mean = weights.gather(1, verb[:, None]).mean()
    uniform = (1 / mask.sum(1)).mean()
    return (
        f"seed {seed}: correct {correct:.3f}; mean weight of the verb {mean:.3f}, uniform {uniform:.3f}; "
        f"verb has the largest weight {hit.mean():.3f}, by relation {rates}"
    )


if __name__ == "__main__":
    for seed in range(4):
        print(report(seed))
