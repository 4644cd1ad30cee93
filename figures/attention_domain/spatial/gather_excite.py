"""One channel and its gates for four extents, by the variant that has nothing to learn."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import (
    WEIGHT_MAP,
    Say,
    clear_row,
    color_bar,
    english,
    name_rows,
    new_figure,
    picture,
    show_image,
)
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
    """Above: the channel. Below: its gates for each extent, and their product."""
    x = channel()
    most = x.abs().max().item()
    columns = len(EXTENTS)
    drawn, axes = new_figure(3, columns, height=4.6, height_ratios=(1.5, 1, 1))
    above = drawn.add_subplot(clear_row(axes[:columns]))
    show_image(above, x, say("channel", "通道"), vmin=-most, vmax=most)
    gates, outputs = axes[columns : 2 * columns], axes[2 * columns :]
    for gate, output, extent in zip(gates, outputs, EXTENTS, strict=True):
        block = GatherExcite(1, "theta_minus", extent)
        gated = block(x)
        title = say("global", "全局") if extent is None else f"e = {extent}"
        show_image(gate, gated / x, title, cmap=WEIGHT_MAP, vmin=0, vmax=1)
        show_image(output, gated, vmin=-most, vmax=most)
    name_rows(axes[columns:], (say("gate", "门控"), say("output", "输出")))
    color_bar(gates, say, say("gate", "门控"))
    return drawn
