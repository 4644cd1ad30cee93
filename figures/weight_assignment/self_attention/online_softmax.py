"""A digit reads sixteen others block by block: largest score, sum and output so far, nothing is trained."""

from itertools import pairwise, product

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.panels import GREY, Dial, Field, Slider
from figures.style import Say, english, name_rows, new_figure, show_image
from snippets.weight_assignment.self_attention.online_softmax import Running, finish, start, update

SHARPNESS = 24.0  # scores are SHARPNESS times the cosine of two digits
LABEL = 3
READ = (0, 6, 4, 1, 7, 2, 0, 9, 5, 3, 8, 6, 4, 2, 7, 1)  # the keys in their order
BLOCK = 4
BLOCKS = (1, 2, 4, 8, 16)


def keys() -> tuple[Tensor, Tensor]:
    """Scores and pictures of the digits that are read: (1, 1, 1, S) and (1, 1, S, 64)."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    asking = images[(labels == LABEL).nonzero()[1]]  # (1, 64)
    of = {label: iter((labels == label).nonzero().flatten().tolist()) for label in set(READ)}
    value = images[[next(of[label]) for label in READ]]
    cosine = nn.functional.normalize(asking, dim=1) @ nn.functional.normalize(value, dim=1).T
    return SHARPNESS * cosine[None, None], value[None, None]


def states(block: int) -> list[Running]:
    """What is known before the first block, and after each."""
    scores, value = keys()
    found = [start(value[:, :, :1], value.shape[3])]
    for first in range(0, len(READ), block):
        read = slice(first, first + block)
        found.append(update(found[-1], scores[..., read], value[:, :, read]))
    return found


def figure(say: Say = english) -> Figure:
    """Above the digits of each block, below the output after it and the factor on what was read before."""
    drawn, axes = new_figure(2, len(READ) // BLOCK, height=3.1)
    digits = nn.functional.pad(keys()[1].view(-1, 2, 2, 8, 8), (0, 1, 0, 1), value=torch.nan)
    blocks = digits.movedim(3, 2).reshape(-1, 18, 18)[:, :-1, :-1]  # 2 x 2 digits each
    for number, (before, after) in enumerate(pairwise(states(BLOCK))):
        above, below = axes[number], axes[number + len(READ) // BLOCK]
        show_image(above, blocks[number], say(f"block {number + 1}", f"第 {number + 1} 块"), vmin=0, vmax=1)
        show_image(below, finish(after).output.view(8, 8), vmin=0, vmax=1)
        kept = (before.largest - after.largest).exp().item()
        numbers = f"m = {after.largest.item():.1f}", f"ℓ = {after.total.item():.2f}", f"× {kept:.2g}"
        below.set_xlabel("\n".join(numbers))
    name_rows(axes, (say("keys", "键"), say("output", "输出")))
    return drawn


def explore(say: Say = english) -> Dial:
    """The state after any number of keys, read in blocks of any size; a block begun is not read yet."""
    S = len(READ)
    scores, place = keys()[0].flatten(), torch.arange(len(READ))
    weights, largest, totals, outputs = [], [], [], []
    for stop, block in product(range(S + 1), BLOCKS):
        past = states(block)[1 : stop // block + 1]
        after = past[-1] if past else states(block)[0]
        read = len(past) * block
        share = (scores - after.largest.item()).exp() / after.total.item() if past else torch.zeros(S)
        weights.append(share.where(place < read, 0.0))
        ms = torch.cat([*(state.largest.flatten() for state in past), torch.zeros(1)])
        ls = torch.cat([*(state.total.flatten() for state in past), torch.zeros(1)])
        at = (place // block).clamp(max=len(past))
        largest.append(ms[at])
        totals.append(ls[at])
        outputs.append(finish(after).output.view(8, 8))
    shape = (S + 1, len(BLOCKS))

    def bars(found: list[Tensor]) -> Tensor:
        return torch.stack(found).view(*shape, 1, S)

    fields = (
        Field(say("weights so far", "目前的权重"), bars(weights), top=1.0),
        Field(say("m after each block", "每块之后的 m"), bars(largest), top=float(scores.max())),
        Field(
            say("ℓ after each block", "每块之后的 ℓ"),
            bars(totals),
            top=max(map(float, bars(totals).flatten())),
        ),
        Field(say("output so far", "目前的输出"), torch.stack(outputs).view(*shape, 8, 8), GREY, top=1.0),
    )
    sliders = (
        Slider(say("keys that have come", "已到的键数"), tuple(map(str, range(S + 1))), S // 2),
        Slider(say("keys per block", "每块的键数"), tuple(map(str, BLOCKS)), BLOCKS.index(BLOCK)),
    )
    return Dial(sliders, fields, tuple(map(str, READ)))


if __name__ == "__main__":
    for running in states(BLOCK)[1:]:
        print(f"m {running.largest.item():.2f}, l {running.total.item():.2f}")
    last = finish(states(BLOCK)[-1]).lse
    print("weights", [round(w, 3) for w in (keys()[0].flatten() - last.item()).exp().tolist()])
