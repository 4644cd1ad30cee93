"""A photograph asks three words, pixel by pixel: which word it reads, and what it gets if one is masked."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import Say, color_bar, english, name_rows, new_figure, picture, show_image, show_weights
from snippets.weight_assignment.soft.cross_attention import CrossAttention

SIDE = 96
SHARPNESS = 12.0
COLOURS = {
    ("black", "黑"): (0.05, 0.05, 0.05),
    ("white", "白"): (0.85, 0.85, 0.85),
    ("orange", "橙"): (0.85, 0.4, 0.2),
}
MASKED = torch.tensor([[True, True, False]])


def words() -> Tensor:
    """One-hot codes of the words: (1, S, C)."""
    return torch.eye(len(COLOURS))[None]


def pixels() -> Tensor:
    """The photograph as a sequence of pixels, each with a one behind its colour: (1, T, 4)."""
    colours = picture("astronaut", (SIDE, SIDE)).flatten(2).mT
    return torch.cat([colours, torch.ones_like(colours[..., :1])], dim=2)


@torch.no_grad()
def layer() -> CrossAttention:
    """Keys and values know the colour of each word; score = -SHARPNESS / 2 * squared distance of two colours.

    What depends on the pixel alone is left out, since a softmax does not see it.
    """
    attention = CrossAttention(4, len(COLOURS), num_heads=1, bias=False).eval()
    colours = torch.tensor(list(COLOURS.values()))  # (C, 3)
    attention.q_proj.weight.copy_(SHARPNESS * 2 * torch.eye(4))  # 2 = sqrt(d)
    attention.k_proj.weight.copy_(
        torch.cat([colours, -colours.square().sum(dim=1, keepdim=True) / 2], dim=1).T
    )
    attention.v_proj.weight.copy_(nn.functional.pad(colours, (0, 1)).T)
    nn.init.eye_(attention.out_proj.weight)
    return attention


@torch.no_grad()
def shown(mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the pixels read, a picture (3, SIDE, SIDE), and the weight of each word, (C, SIDE, SIDE)."""
    x, read = pixels(), layer()(pixels(), words(), mask)
    weights = layer().attention(x, words(), mask)[0, 0].T
    return read[0, :, :3].T.unflatten(1, (SIDE, SIDE)), weights.unflatten(1, (SIDE, SIDE))


def figure(say: Say = english) -> Figure:
    """Above: the photograph and what it reads. Below: the weight of each word, without and with a mask."""
    drawn, axes = new_figure(3, len(COLOURS), height=4.9)
    (read, weights), (rest, masked) = shown(None), shown(MASKED)
    titles = say("photograph", "照片"), say("it reads", "读到的"), say("without “orange”", "没有“橙”")
    for panel, image, title in zip(
        axes[:3], (picture("astronaut", (SIDE, SIDE)), read, rest), titles, strict=True
    ):
        show_image(panel, image.clamp(0, 1), title)
    names = [say(f"“{english_word}”", f"“{chinese_word}”") for english_word, chinese_word in COLOURS]
    for panel, one, title in zip(axes[3:], (*weights, *masked), names * 2, strict=True):
        show_weights(panel, one, title)
        panel.images[0].set_clim(0, 1)
    name_rows(axes, ["", say("all words", "全部"), say("one masked", "遮住一个")])
    color_bar(axes, say)
    return drawn


if __name__ == "__main__":
    for mask in (None, MASKED):
        read, weights = shown(mask)
        print("largest share of each word:", [f"{w:.2f}" for w in weights.amax(dim=(1, 2))], end=", ")
        first = weights.argmax(dim=0).flatten().bincount(minlength=len(COLOURS)) / SIDE**2
        print("most read:", [f"{share:.0%}" for share in first])
