"""The look of all figures, and their grammar: readable on a phone, on light and on dark pages.

A figure is FIGURE_WIDTH inches wide and is scaled to the width of the page, so its text scales too: 10 pt,
the smallest there is, is 11 px on a phone of 360 px, which has 328 for a figure, and 17 px at 500 px, the
largest it is shown. Put little side by side: four panels, five if their titles are short.

Every row and column has a name in the picture. Where a colour means a number, `color_bar` says which.

Black is printed in the text colour of the page. Every other colour must be readable on both backgrounds;
those of COLORS are, and they stay distinct for colour-blind readers.

Each word that a reader sees is written in both languages where it is used, `say("weight", "权重")`; symbols,
data and names of architectures are the same in both.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from torch import Tensor

Say = Callable[[str, str], str]
"""Picks the word in the language of the page: `say("weight", "权重")`."""

FIGURE_WIDTH = 4.1
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b8679a", "#a07800", "#808080")
WEIGHT_MAP = "magma"  # the colour map of attention weights

BOXES = "Last Resort High-Efficiency"
"""A font of matplotlib, one box for any character: measures Chinese, which DejaVu Sans lacks; never seen."""

# It has no bold, of which matplotlib would tell
logging.getLogger("matplotlib.font_manager").addFilter(lambda record: BOXES not in str(record.args))

STYLE: dict[str, Any] = {
    "axes.edgecolor": "black",
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelsize": 11,
    "axes.linewidth": 1.0,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans", BOXES],
    "font.size": 11,
    "image.cmap": WEIGHT_MAP,
    "image.interpolation": "none",
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "mathtext.fontset": "dejavusans",
    "savefig.facecolor": "none",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}


def english(word: str, _: str) -> str:
    """Say it in English."""
    return word


def chinese(_: str, word: str) -> str:
    """Say it in Chinese."""
    return word


def new_figure(
    rows: int = 1, columns: int = 1, height: float = 2.4, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure FIGURE_WIDTH inches wide, `height` inches high, and its axes row by row.

    `options` go to `Figure.subplots`, e.g. `sharey=True` or `width_ratios=(2, 1)`.
    """
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]  # knows the names one by one
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def clear_row(panels: Sequence[Axes]) -> SubplotSpec:
    """Remove the panels of a row; return their place, for `add_subplot` or `subgridspec`."""
    place = panels[0].get_subplotspec()
    assert place is not None
    for panel in panels:
        panel.remove()
    return place.get_gridspec()[place.rowspan.start, :]


def show_image(axes: Axes, image: Tensor | np.ndarray, title: str = "", **options: Any) -> None:
    """Show a picture without ticks: (H, W), (1, H, W), (3, H, W) or (H, W, 3), floats in [0, 1] or bytes.

    `options` go to `imshow`; one channel is grey unless `cmap` says otherwise.
    """
    pixels = torch.as_tensor(image).detach().squeeze()
    if pixels.dim() == 3 and pixels.shape[0] == 3:
        pixels = pixels.movedim(0, -1)  # (H, W, 3)
    options.setdefault("cmap", "gray")
    axes.imshow(pixels.numpy(), **options)
    _bare(axes, title)


def show_weights(
    axes: Axes, weights: Tensor | np.ndarray, title: str = "", over: Tensor | np.ndarray | None = None
) -> None:
    """Show attention weights (H, W), dark to bright from 0 to the largest, if asked over a picture."""
    values = torch.as_tensor(weights).detach().squeeze().numpy()
    options: dict[str, Any] = {"cmap": WEIGHT_MAP, "vmin": 0.0}
    if over is not None:
        show_image(axes, over)
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        options |= {"alpha": 0.65, "extent": (left, right, bottom, top), "aspect": axes.get_aspect()}
    axes.imshow(values, **options)
    _bare(axes, title)


def color_bar(panels: Sequence[Axes], say: Say, meaning: str = "") -> None:
    """Say below `panels` what the colours of those that have a colour map mean: weights, unless it is told.

    The ends of the bar are numbers if all have one scale. Otherwise each has its own, to its largest.
    """
    pictures = [picture for panel in panels for picture in panel.images]
    mapped = [picture for picture in pictures if picture.get_cmap().name != "gray"]
    scales = {picture.get_clim() for picture in mapped}
    low, high = mapped[0].get_clim()
    ends = [f"{end:.2g}".replace("-", "\N{MINUS SIGN}") for end in (low, high)]
    if len(scales) > 1:
        largest = say("largest", "最大")
        ends = ["0" if low == 0 else f"\N{MINUS SIGN}{largest}", largest]
    figure = panels[0].get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(mapped[0], ax=list(panels), location="bottom", shrink=0.7, aspect=30, pad=0.03)
    bar.set_ticks([low, high], labels=ends)
    bar.set_label(meaning or say("weight", "权重"), labelpad=-9)  # between the ends
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def name_rows(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """Write a name at the left of each row of `panels`."""
    columns = len(panels) // len(names)
    for panel, name in zip(panels[::columns], names, strict=True):
        panel.set_ylabel(name)


def mark(axes: Axes, row: float, column: float, name: str = "") -> None:
    """Draw a ring around a position, the query; beside it its name, if several have one."""
    axes.plot(column, row, "o", ms=9, mfc="none", mec="white", mew=2, clip_on=False)
    axes.annotate(
        name, (column, row), (7, 0), textcoords="offset points", color="white", va="center", weight="bold"
    )


def picture(name: str = "astronaut", size: Sequence[int] = (128, 128)) -> Tensor:
    """Return a photograph of scikit-image as (1, 3, H, W) in [0, 1].

    Names: astronaut, camera, chelsea, coffee, rocket and the other pictures that come with the package.
    The largest centred part of the wanted proportions is cut out and scaled to `size` = (H, W).
    """
    from skimage import color, data, transform, util

    pixels = util.img_as_float(getattr(data, name)())
    if pixels.ndim == 2:
        pixels = color.gray2rgb(pixels)
    height, width = pixels.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    part = pixels[top : top + rows, left : left + columns]
    resized = transform.resize(part, tuple(size), anti_aliasing=True)
    return torch.from_numpy(resized).float().movedim(-1, 0)[None]


def _bare(axes: Axes, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title)
