"""One layer set by hand: head 1 finds the previous word, head 2 the same word; one head cannot do both."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Matrix
from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention

WORDS = ["to", "be", "or", "not", "to", "be"]
FREQUENCIES = torch.tensor([1.0, 0.3])
SHARPNESS = 12.0


def positions(first: int) -> Tensor:
    """Sinusoidal positions first, first + 1, ... of the words: (T, 4)."""
    angles = torch.arange(first, first + len(WORDS))[:, None] * FREQUENCIES
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sentence() -> Tensor:
    """Four position features beside a one-hot code of the four different words: (1, T, 8)."""
    code = torch.tensor([sorted(set(WORDS)).index(word) for word in WORDS])
    return torch.cat([positions(0), nn.functional.one_hot(code, 4)], dim=1)[None]


@torch.no_grad()
def layer(heads: int) -> MultiHeadAttention:
    """Queries turn the position one step back and keep the word; keys are the input itself."""
    attention = MultiHeadAttention(8, heads, bias=False)
    cos, sin = FREQUENCIES.cos().diag(), FREQUENCIES.sin().diag()
    back = torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
    attention.q_proj.weight.copy_(SHARPNESS * torch.block_diag(back, torch.eye(4)))
    for projection in (attention.k_proj, attention.v_proj, attention.out_proj):
        nn.init.eye_(projection.weight)
    return attention.eval()


@torch.no_grad()
def maps() -> list[Tensor]:
    """Weights (T, T) of head 1 and head 2, and those of one head with the same parameters."""
    first, second = layer(heads=2).attention(sentence())[0]
    return [first, second, layer(heads=1).attention(sentence())[0, 0]]


def titles(say: Say) -> tuple[str, str, str]:
    """What the three maps are called."""
    return say("head 1 of 2", "头 1"), say("head 2 of 2", "头 2"), say("1 head", "一个头")


def figure(say: Say = english) -> Figure:
    """Rows: queries. Columns: keys."""
    drawn, axes = new_figure(2, 2, height=5.0)
    for axis, title, weights in zip(axes[:3], titles(say), maps(), strict=True):
        show_weights(axis, weights, title)
        axis.set_xticks(range(len(WORDS)), WORDS)
        axis.set_yticks(range(len(WORDS)), WORDS)
    axes[3].remove()
    color_bar(axes[:3], say)
    return drawn


def explore(say: Say = english) -> Matrix:
    """The three maps, word by word."""
    fields = (Field(title, weights) for title, weights in zip(titles(say), maps(), strict=True))
    return Matrix(tuple(WORDS), tuple(WORDS), tuple(fields))
