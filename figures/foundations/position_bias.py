"""Four biases as tables of queries and keys, set by hand, and what tokens read that differ in place alone."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.panels import Field, Matrix
from figures.style import Say, color_bar, english, new_figure
from snippets.foundations.position_bias import (
    ALiBi,
    BiasedAttention,
    ShawKeys,
    T5Bias,
    TransformerXLBias,
    distances,
)

TOKENS, FEW = 32, 12
WIDTH = 16
LOWEST = -4.0
LEFT, RIGHT = 8, 4  # Shaw's reach


@torch.no_grad()
def shaw() -> BiasedAttention:
    """Half a point less for each token back, one for each ahead, as far as the table reaches."""
    bias = ShawKeys(WIDTH, LEFT, RIGHT)
    row = torch.arange(-LEFT, RIGHT + 1)
    bias.rows.weight[:] = torch.where(row < 0, row / 2, -row)[:, None] * WIDTH**-0.5
    return BiasedAttention(bias)


@torch.no_grad()
def t5() -> BiasedAttention:
    """A quarter less for each bucket, of either direction."""
    bias = T5Bias(1)
    bias.table.weight[:] = LOWEST / 15 * (torch.arange(32) % 16)[:, None]
    return BiasedAttention(bias, scale=0.0)


@torch.no_grad()
def transformer_xl() -> BiasedAttention:
    """The cosines of all paces, added up."""
    bias = TransformerXLBias(1, WIDTH)
    nn.init.eye_(bias.r_proj.weight)
    nn.init.constant_(bias.u, LOWEST / 2 * WIDTH**-0.5)
    nn.init.zeros_(bias.v)
    bias.v[..., WIDTH // 2 :] = -LOWEST / 2 * WIDTH**0.5 / (WIDTH // 2)
    return BiasedAttention(bias, causal=True, scale=0.0)


def alibi() -> BiasedAttention:
    """The third of eight heads, slope 1/8."""
    return BiasedAttention(ALiBi(8), causal=True, scale=0.0)


FORMS: tuple[tuple[str, Callable[[], BiasedAttention]], ...] = (
    ("Shaw", shaw),
    ("T5", t5),
    ("Transformer-XL", transformer_xl),
    ("ALiBi", alibi),
)


def tokens(made: BiasedAttention, count: int) -> tuple[Tensor, Tensor]:
    """Queries and keys of equal tokens; zero queries for Transformer-XL, so that its places count alone."""
    heads = 8 if isinstance(made.bias, ALiBi) else 1
    query = torch.full((1, heads, count, WIDTH), 0.0 if isinstance(made.bias, TransformerXLBias) else 1.0)
    return query, torch.ones(1, heads, count, WIDTH)


@torch.no_grad()
def table(made: BiasedAttention) -> Tensor:
    """The bias of each query (row) and key, NaN where it is hidden: (T, T)."""
    query, key = tokens(made, TOKENS)
    heads = made.bias(query, key).flatten(0, -3)
    found: Tensor = heads[2 if len(heads) == 8 else 0]
    return found.masked_fill(distances(TOKENS, TOKENS) > 0, torch.nan) if made.causal else found


@torch.no_grad()
def weights(made: BiasedAttention) -> Tensor:
    """What equal tokens read: (T, T)."""
    found = made.attention(*tokens(made, FEW))[0]
    return found[2 if len(found) == 8 else 0]


def figure(say: Say = english) -> Figure:
    """The tables, side by side."""
    drawn, axes = new_figure(2, 2, height=4.7, sharex=True, sharey=True)
    for one, (name, make) in zip(axes, FORMS, strict=True):
        one.imshow(table(make()).numpy(), cmap="magma", vmin=LOWEST, vmax=0)
        one.set_title(name)
        one.set_xticks([0, 15, 31])
        one.set_yticks([0, 15, 31])
    for one in axes[::2]:
        one.set_ylabel(say("query", "查询"))
    for one in axes[2:]:
        one.set_xlabel(say("key", "键"))
    color_bar(axes, say, say("bias", "偏置"))
    return drawn


def explore(say: Say = english) -> Matrix:
    """What equal tokens read, under each bias."""
    names = tuple(str(place) for place in range(FEW))
    return Matrix(names, names, tuple(Field(name, weights(make())) for name, make in FORMS))


if __name__ == "__main__":
    torch.set_printoptions(precision=2, sci_mode=False, linewidth=160)
    for name, make in FORMS:
        print(name, table(make())[20, :24], weights(make())[8], sep="\n")
