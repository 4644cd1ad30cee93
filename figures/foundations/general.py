"""One clip, three choices of g: a photograph is darkened but in one frame; nothing is trained."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import COLORS, Say, color_bar, english, new_figure, picture, show_image, show_weights
from snippets.foundations.general import normalise, what, when, where

HEIGHT, WIDTH = 90, 120
EXPOSURES = (0.3, 1.0, 0.5)
SHARPNESS = 8.0


def clip() -> Tensor:
    """The clip (1, T, 3, H, W): the same photograph in three exposures, in [0, 1]."""
    return picture("coffee", (HEIGHT, WIDTH))[:, None] * torch.tensor(EXPOSURES).view(1, -1, 1, 1, 1)


def weights() -> dict[str, Tensor]:
    """What each g says of the clip; scores are multiplied by `SHARPNESS` before the softmax."""
    return {score.__name__: normalise(SHARPNESS * score(clip()))[0] for score in (when, what, where)}


def bars(axes: Axes, heights: Tensor, names: str, colors: tuple[str, ...], title: str) -> None:
    """One bar per weight, with its percentage."""
    drawn = axes.bar(list(names), heights.flatten().tolist(), color=colors)
    axes.bar_label(drawn, [f"{height:.0%}" for height in heights.flatten().tolist()])
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_title(title)


def figure(say: Say = english) -> Figure:
    """Above: the three frames. Below: the weights over frames, over channels and over positions."""
    drawn, axes = new_figure(2, 3, height=3.6)
    for number, (frame, place) in enumerate(zip(clip()[0], axes, strict=False), start=1):
        show_image(place, frame, f"t = {number}")
    g = weights()
    bars(axes[3], g["when"], "123", (COLORS[5],), say("when\n(T)", "何时\n(T)"))
    bars(axes[4], g["what"], "RGB", (COLORS[1], COLORS[2], COLORS[0]), say("what\n(C)", "什么\n(C)"))
    show_weights(axes[5], g["where"], say("where\n(H, W)", "何处\n(H, W)"))
    axes[5].set_anchor("N")
    color_bar(axes, say)
    return drawn


if __name__ == "__main__":
    for name, found in weights().items():
        values = found.flatten().sort(descending=True).values
        print(name, tuple(found.shape), [round(value, 3) for value in values[:3].tolist()])
    over = weights()["where"].flatten().sort(descending=True).values.cumsum(0)
    print(
        f"half of the weight of where lies on {(over < 0.5).sum().item() / over.numel():.0%} of the positions"
    )
