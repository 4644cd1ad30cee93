"""Ten handwritten digits in one matrix of fixed size, and what a second picture under the same key does."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.panels import Dial, Field, Slider
from figures.style import Say, english, new_figure
from snippets.weight_assignment.self_attention.linear import LinearAttention, linear_attention

DRAWERS, WIDTH = 10, 16  # keys, and numbers in each
SHARPNESS = 8.0  # of queries and keys, for positive features and for the softmax
TEXT = "mississippi"
LETTERS = sorted(set(TEXT))


def keys() -> Tensor:
    """Ten directions at right angles, drawn at random: (DRAWERS, WIDTH)."""
    generator = torch.Generator().manual_seed(0)
    frame: Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return frame[:DRAWERS]


def pictures() -> tuple[Tensor, Tensor]:
    """A digit for each key, 0 to 9, and a second one, 9 to 0: (DRAWERS, 64) each, in [0, 1]."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().flatten(1) / 16
    of = [images[data.target == digit] for digit in range(DRAWERS)]
    return torch.stack([kind[0] for kind in of]), torch.stack([kind[1] for kind in reversed(of)])


def plain(key: Tensor, value: Tensor) -> Tensor:
    """Write all pairs as they are, then ask for each of the ten keys: (DRAWERS, 64)."""
    q = torch.cat([torch.zeros_like(key), keys()])
    k = torch.cat([key, torch.zeros(DRAWERS, WIDTH)])
    v = torch.cat([value, torch.zeros(DRAWERS, value.shape[1])])
    out, _ = linear_attention(q[None, :, None], k[None, :, None], v[None, :, None])
    return out[0, -DRAWERS:, 0]


@torch.no_grad()
def layer(key: Tensor, value: Tensor) -> Tensor:
    """The same with the layer, whose features are positive and whose weights sum to one: (DRAWERS, 64).

    A token is key and picture side by side; the layer is set to take queries and keys from the first half,
    values from the second. The token that asks has an empty picture, whose weight is taken out of the sum.
    """
    width = WIDTH + value.shape[1]
    made = LinearAttention(width, 1).eval()
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    for linear in (made.q_proj, made.k_proj):
        linear.weight[:WIDTH, :WIDTH] = SHARPNESS * torch.eye(WIDTH)
    made.v_proj.weight[WIDTH:, WIDTH:] = torch.eye(value.shape[1])
    made.out_proj.weight.copy_(torch.eye(width))
    written = torch.cat([key, value], dim=1).expand(DRAWERS, -1, -1)
    x = torch.cat([written, F.pad(keys(), (0, value.shape[1]))[:, None]], dim=1)  # a batch of ten questions
    own = made.attention(x)[:, 0, -1, -1:]
    read: Tensor = made(x)[:, -1, WIDTH:] / (1 - own)
    return read


def softmax(key: Tensor, value: Tensor) -> Tensor:
    """The same with softmax attention, all pairs kept: (DRAWERS, 64)."""
    return F.scaled_dot_product_attention(SHARPNESS * keys(), SHARPNESS * key, value)


def figure(say: Say = english) -> Figure:
    """Row by row: what was written, and what three kinds of weights read; below, after a second picture."""
    key, (first, second) = keys(), pictures()
    rows = {
        say("written", "写入"): first,
        say("softmax", "softmax"): softmax(key, first),
        say("positive", "正特征"): layer(key, first),
        say("signed", "带符号"): plain(key, first),
        say("second", "第二次写入"): second,
        say("signed ÷ 2", "带符号 ÷ 2"): plain(torch.cat([key, key]), torch.cat([first, second])) / 2,
    }
    tiles = torch.stack([row.view(DRAWERS, 8, 8) for row in rows.values()])  # (6, DRAWERS, 8, 8)
    tiles = F.pad(tiles, (1, 0, 1, 0), value=torch.nan)
    drawn, (axes,) = new_figure(1, 1, height=2.5)
    axes.imshow(tiles.transpose(1, 2).reshape(len(rows) * 9, -1), cmap="gray", vmin=0, vmax=1)
    axes.set_yticks([9 * row + 4.5 for row in range(len(rows))], list(rows))
    axes.set_xticks([9 * drawer + 4.5 for drawer in range(DRAWERS)], [str(n) for n in range(DRAWERS)])
    axes.set_xlabel(say("key", "键"))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return drawn


def reading() -> tuple[Tensor, Tensor]:
    """After each letter of TEXT but the first: the memory, (n, L, L), and what is read, (n, L).

    The letter before is the key, the letter itself the value, and the query as well.
    """
    letters = F.one_hot(torch.tensor([LETTERS.index(letter) for letter in TEXT])).float()[None, :, None]
    before, now = letters[:, :-1], letters[:, 1:]
    memories, state = [], None
    for last, letter in zip(before.split(1, dim=1), now.split(1, dim=1), strict=True):
        _, state = linear_attention(letter, last, letter, state)
        memories.append(state[0, 0])
    out, _ = linear_attention(now, before, now)
    return torch.stack(memories), out[0, :, 0]


def explore(say: Say = english) -> Dial:
    """The memory as it is written, and the row that the last letter reads."""
    memories, out = reading()
    stops = tuple(TEXT[: t + 2] for t in range(len(memories)))
    fields = (
        Field(
            say(
                f"memory: row = letter before, column = after ({', '.join(LETTERS)})",
                f"记忆：行为前一字母，列为后一字母（{'、'.join(LETTERS)}）",
            ),
            memories,
            top=memories.max().item(),
        ),
        Field(
            say("read: what came after this letter", "读出：这个字母之后来过什么"),
            out[:, None],
            top=out.max().item(),
        ),
    )
    return Dial((Slider(say("text so far", "已读文本"), stops, len(stops) - 1),), fields, tuple(LETTERS))


if __name__ == "__main__":
    key, (first, second) = keys(), pictures()
    for name, read, right in (
        ("softmax", softmax(key, first), first),
        ("elu + 1", layer(key, first), first),
        ("elu + 1, beside the mean", layer(key, first), first.mean(dim=0).expand_as(first)),
        ("signed", plain(key, first), first),
        ("signed, after a second picture", plain(torch.cat([key, key]), torch.cat([first, second])), second),
    ):
        error = (read - right).norm(dim=1) / right.norm(dim=1)
        print(f"{name}: relative error {error.mean():.2g}")
