"""What a memory holds after three pictures under each key, and how well it keeps pairs whose keys overlap."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from figures.panels import Dial, Field, Slider
from figures.style import COLORS, Say, english, new_figure
from figures.weight_assignment.self_attention.linear import DRAWERS, LETTERS, TEXT, keys
from snippets.weight_assignment.self_attention.delta_rule import delta_rule
from snippets.weight_assignment.self_attention.linear import linear_attention

ROUNDS = 3  # pictures for each drawer, one after the other
PAIRS, WIDTH, DRAWS = 32, 16, 1000  # twice as many keys as fit at right angles
RATES = (0.0, 0.25, 0.5, 0.75, 1.0)


def pictures() -> Tensor:
    """Digits drawn at random for each drawer: (ROUNDS, DRAWERS, 64), in [0, 1]."""
    digits = torch.from_numpy(load_digits().images).float().flatten(1) / 16
    generator = torch.Generator().manual_seed(0)
    drawn: Tensor = digits[torch.randint(len(digits), (ROUNDS, DRAWERS), generator=generator)]
    return drawn


def memories(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Write pairs into a sum, and by the delta rule with beta = 1: (B, T, d), (B, T, e) -> (B, d, e) each."""
    k, v = key[:, :, None], value[:, :, None]
    _, added = linear_attention(k, k, v)
    _, corrected = delta_rule(k, k, v, torch.ones(k.shape[:3]))
    return added[:, 0], corrected[:, 0]


def drawers() -> tuple[Tensor, Tensor]:
    """Read all drawers after all pictures, from the sum and from the corrected memory: (DRAWERS, 64) each."""
    added, corrected = memories(keys().repeat(ROUNDS, 1)[None], pictures().flatten(0, 1)[None])
    return keys() @ added[0], keys() @ corrected[0]


def once(pairs: int) -> tuple[Tensor, Tensor]:
    """Keys of length one in random directions, and values: (DRAWS, pairs, WIDTH) each."""
    generator = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, DRAWS, pairs, WIDTH, generator=generator)
    return F.normalize(k, dim=-1), v


def errors(read: Tensor, value: Tensor) -> Tensor:
    """Relative error of each pair, the newest first: (DRAWS, pairs, WIDTH) -> (pairs)."""
    error: Tensor = (read - value).norm(dim=2) / value.norm(dim=2)
    return error.mean(dim=0).flip(0)


def found(read: Tensor, value: Tensor) -> float:
    """How often the nearest value is the right one."""
    nearest = torch.cdist(read, value).argmin(dim=2)
    return float((nearest == torch.arange(value.shape[1])).float().mean())


def figure(say: Say = english) -> Figure:
    """Above: what was written, and what both memories read. Below: pairs written once, by their age."""
    drawn, (above, below) = new_figure(2, 1, height=4.3, height_ratios=(1, 1))
    added, corrected = drawers()
    names = (say("first", "第一次"), say("second", "第二次"), say("last", "最后"))
    rows = dict(zip(names, pictures(), strict=True))
    rows |= {say("sum ÷ 3", "和 ÷ 3"): added / ROUNDS, say("delta", "增量"): corrected}
    tiles = torch.stack([row.view(DRAWERS, 8, 8) for row in rows.values()])  # (rows, DRAWERS, 8, 8)
    tiles = F.pad(tiles, (1, 0, 1, 0), value=torch.nan)
    above.imshow(tiles.transpose(1, 2).reshape(len(rows) * 9, -1), cmap="gray", vmin=0, vmax=1)
    above.set_yticks([9 * row + 4.5 for row in range(len(rows))], list(rows))
    above.set_xticks([9 * drawer + 4.5 for drawer in range(DRAWERS)], [str(n) for n in range(DRAWERS)])
    above.set_xlabel(say("key", "键"))
    above.tick_params(length=0)
    above.spines[:].set_visible(False)
    key, value = once(PAIRS)
    kinds = (say("sum", "和"), say("delta rule", "增量规则"))
    for memory, name, color in zip(memories(key, value), kinds, COLORS, strict=False):
        below.plot(errors(key @ memory, value), color=color, label=name)
    best = errors(key @ torch.linalg.pinv(key) @ value, value)
    below.plot(best, color=COLORS[5], linestyle="dashed", label=say("least squares", "最小二乘"))
    below.set_xlabel(say("pairs written after it", "之后写入的对数"))
    below.set_ylabel(say("relative error", "相对误差"))
    below.set_ylim(bottom=0)
    below.legend(loc="lower right")
    return drawn


def reading(rates: Iterable[float]) -> Iterable[tuple[Tensor, Tensor]]:
    """For each beta, after each letter of TEXT but the first: the memory (n, L, L), and what is read (n, L).

    The letter before is the key, the letter itself the value, and the query as well.
    """
    letters = F.one_hot(torch.tensor([LETTERS.index(letter) for letter in TEXT])).float()[None, :, None]
    before, now = letters[:, :-1], letters[:, 1:]
    for rate in rates:
        beta = torch.full(now.shape[:3], rate)
        out, _ = delta_rule(now, before, now, beta)
        lengths = range(1, now.shape[1] + 1)
        kept = [delta_rule(now[:, :n], before[:, :n], now[:, :n], beta[:, :n])[1] for n in lengths]
        yield torch.stack([state[0, 0] for state in kept]), out[0, :, 0]


def explore(say: Say = english) -> Dial:
    """The memory as it is written, for several beta, and the row that the last letter reads."""
    memory, out = (torch.stack(part, dim=1) for part in zip(*reading(RATES), strict=True))
    stops = tuple(TEXT[: t + 2].replace(" ", "_") for t in range(len(memory)))
    sliders = (
        Slider(say("text so far", "已读文本"), stops, len(stops) - 1),
        Slider("β", tuple(map(str, RATES)), len(RATES) - 1),
    )
    fields = (
        Field(
            say("memory: row = letter before, column = after", "记忆：行为前一字母，列为后一字母"),
            memory,
            top=1.0,
        ),
        Field(
            say("read: what came last after this letter", "读出：这个字母之后最近来的是什么"),
            out[:, :, None],
            top=1.0,
        ),
    )
    return Dial(sliders, fields, tuple(letter.replace(" ", "_") for letter in LETTERS))


if __name__ == "__main__":
    last = pictures()[-1]
    for name, read in zip(("sum", "delta rule"), drawers(), strict=True):
        print(f"{name}: relative error {(read - last).norm() / last.norm():.2g}")
    for pairs in (8, 16, 32):
        key, value = once(pairs)
        added, corrected = memories(key, value)
        _, again = memories(key.repeat(1, 20, 1), value.repeat(1, 20, 1))
        best = torch.linalg.pinv(key) @ value
        softmax = (20 * key @ key.mT).softmax(dim=-1) @ value
        for name, read in (
            ("sum", key @ added),
            ("delta rule", key @ corrected),
            ("delta rule, twenty passes", key @ again),
            ("least squares", key @ best),
            ("softmax", softmax),
        ):
            age = errors(read, value)
            error = (read - value).norm() / value.norm()
            print(f"{pairs} pairs, {name}: found {found(read, value):.3f}, error {error:.3f}; ", end="")
            print("by age", [round(age[n].item(), 2) for n in (0, 1, 2, 4, pairs // 2, pairs - 1)])
