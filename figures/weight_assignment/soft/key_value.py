"""A memory of 1500 handwritten digits, asked with the upper half of other digits; nothing is trained."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from figures.style import Say, english, new_figure
from snippets.weight_assignment.soft.key_value import KeyValueAttention

STORED = 1500  # of 1797 digits; the others ask
SHARPNESS = 40.0
HALF = 4  # rows of 8
KINDS = 6  # shown: the first held-out digit of each kind from 0 on


def digits() -> tuple[Tensor, Tensor]:
    """Pictures (1797, 8, 8) in [0, 1] and what they show (1797,)."""
    data = load_digits()
    return torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target)


def address(halves: Tensor) -> Tensor:
    """Make half pictures (n, 4, 8) comparable by a dot product: (n, 32), mean removed, length one."""
    flat = halves.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def ask(value: Tensor | None) -> Tensor:
    """Ask with the upper halves of all held-out digits; read `value` (STORED, d_v), or the keys."""
    upper = digits()[0][:, :HALF]
    query = SHARPNESS * 32**0.5 * address(upper[STORED:])
    key = address(upper[:STORED]).expand(len(query), -1, -1)
    value = None if value is None else value.expand(len(query), -1, -1)
    read: Tensor = KeyValueAttention(32)(key, value, query)
    return read


def stretch(vectors: Tensor) -> Tensor:
    """Bring each vector to [0, 1]: keys have mean zero and length one, so no grey of their own."""
    low, high = vectors.amin(dim=1, keepdim=True), vectors.amax(dim=1, keepdim=True)
    return (vectors - low) / (high - low)


def figure(say: Say = english) -> Figure:
    """Row by row: the upper halves that ask, what each mode reads, and the lower halves to compare with."""
    images, label = digits()
    asked, label = images[STORED:], label[STORED:]
    first = [int((label == kind).nonzero()[0]) for kind in range(KINDS)]
    rows = {
        say("query", "查询"): asked[:, :HALF],
        say("plain", "普通"): stretch(ask(None)),
        say("key–value", "键值对"): ask(images[:STORED, HALF:].flatten(1)),
        say("lower half", "下半部分"): asked[:, HALF:],
    }
    tiles = torch.stack([halves.view(-1, HALF, 8)[first] for halves in rows.values()])  # (4, KINDS, 4, 8)
    tiles = F.pad(tiles, (1, 0, 1, 0), value=torch.nan)  # (4, KINDS, 5, 9)
    drawn, (axes,) = new_figure(1, 1, height=2.1)
    axes.imshow(tiles.transpose(1, 2).reshape(4 * 5, -1), cmap="gray", vmin=0, vmax=1)
    axes.set_yticks([5 * row + 2.5 for row in range(len(rows))], list(rows))
    axes.set_xticks([9 * kind + 4.5 for kind in range(KINDS)], map(str, range(KINDS)))
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return drawn


def report() -> str:
    """Compare what is read with the lower half of the digit itself, over all held-out digits."""
    images, label = digits()
    lower = images[:, HALF:].flatten(1)
    keys = address(images[:, :HALF])
    nearest = (keys[STORED:] @ keys[:STORED].mT).argmax(dim=1)
    truth = lower[STORED:]
    guesses = {"soft": ask(lower[:STORED]), "hard": lower[nearest], "mean": lower[:STORED].mean(dim=0)}
    errors = [f"{name} {(guess - truth).square().mean().sqrt():.3f}" for name, guess in guesses.items()]
    kinds = ask(F.one_hot(label[:STORED]).float()).argmax(dim=1)
    right = (kinds == label[STORED:]).float().mean()
    likeness = F.cosine_similarity(address(ask(None)), keys[STORED:]).mean()
    return (
        f"error of the lower half: {', '.join(errors)}; "
        f"labels as values: {right:.3f} right; plain read and query correlate {likeness:.3f}"
    )


if __name__ == "__main__":
    print(report())
