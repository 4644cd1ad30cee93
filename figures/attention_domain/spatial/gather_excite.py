"""One channel and its gates for four extents, by the variant that has nothing to learn."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import Say, english, new_figure, picture, show_image
from snippets.attention_domain.spatial.gather_excite import GatherExcite

SIZE = (64, 64)
EXTENTS = (2, 4, 8, None)
STRENGTH = 2.0  # standard deviation of the channel


def channel() -> Tensor:
    """Brightness of a photograph with mean 0 and standard deviation STRENGTH: (1, 1, H, W)."""
    grey = picture("camera", SIZE).mean(dim=1, keepdim=True)
    return STRENGTH * (grey - grey.mean()) / grey.std()


@torch.no_grad()
def figure(say: Say = english) -> Figure:
    """First row: the channel, and its gates for each extent. Second row: their product."""
    x = channel()
    most = x.abs().max().item()
    drawn, axes = new_figure(2, 5, height=2.9)
    show_image(axes[0], x, say("channel", "通道"), vmin=-most, vmax=most)
    axes[5].set_axis_off()
    for column, extent in enumerate(EXTENTS, start=1):
        block = GatherExcite(1, "theta_minus", extent)
        gated = block(x)
        title = say("global", "全局") if extent is None else f"e = {extent}"
        show_image(axes[column], gated / x, title, cmap="magma", vmin=0, vmax=1)
        show_image(axes[5 + column], gated, vmin=-most, vmax=most)
    after = say("after\nthe gate", "门控\n之后")
    axes[5].text(0.98, 0.5, after, ha="right", va="center", transform=axes[5].transAxes)
    return drawn
