"""Six masks over equal scores: each token shares one unit of weight evenly among those that it may see."""

import itertools

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from figures.panels import Field, Mask
from figures.style import Say, color_bar, english, new_figure, show_weights
from snippets.foundations.structured_masks import (
    PatternAttention,
    block_diffusion,
    causal,
    chunks,
    documents,
    prefix,
    tree,
)

T = 12
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
PICTURE = torch.tensor([[-1, -1, -1, 0, 0, 0, 0, -1, -1, -1, -1, -1]])
PREFIX = torch.tensor([5])
CHUNK = 4
PARENTS = torch.tensor([[-1, 0, 1, 2, 2, 4, 4, 1, 7, 7, 8, 8]])


def weights(mask: Tensor) -> Tensor:
    """Weights (T, T) if all scores are equal."""
    query = torch.zeros(1, 1, mask.shape[-1], 1)
    return PatternAttention().attention(query, query, query, mask)[0, 0]


def figure(say: Say = english) -> Figure:
    """Rows ask, columns are asked."""
    shown = {
        say("documents", "文档"): causal(T) & documents(IDS),
        say("prefix", "前缀"): prefix(PREFIX, T),
        say("chunks", "分块"): causal(T) & chunks(T, CHUNK),
        say("picture in text", "文中有图"): causal(T) | documents(PICTURE),
        say("block diffusion", "块扩散"): block_diffusion(T // 2, 2),
        say("tree", "树"): tree(PARENTS),
    }
    drawn, axes = new_figure(2, 3, height=3.9)
    for panel, (name, mask) in zip(axes, shown.items(), strict=True):
        show_weights(panel, weights(mask), name)
        panel.images[0].set_norm(PowerNorm(0.5, vmin=0, vmax=1))
    for panel in axes[::3]:
        panel.set_ylabel(say("query", "查询"))
    for panel in axes[3:]:
        panel.set_xlabel(say("key", "键"))
    color_bar(axes, say)
    return drawn


def allowed(is_causal: bool, apart: bool, chunked: bool, led: bool, pictured: bool) -> Tensor:
    """Combine what is switched on: what is shown by `|`, what is hidden by `&`."""
    mask = causal(T) if is_causal else torch.ones(1, 1, T, T, dtype=torch.bool)
    mask = mask | prefix(PREFIX, T) if led else mask
    mask = mask | documents(PICTURE) if pictured else mask
    mask = mask & documents(IDS) if apart else mask
    return mask & chunks(T, CHUNK) if chunked else mask


def explore(say: Say = english) -> Mask:
    """Five masks, of which any may be on."""
    masks = torch.stack(
        [allowed(*on) for on in itertools.product((False, True), repeat=5)]
    )  # (32, 1, 1, T, T)
    found = torch.stack([weights(mask) for mask in masks])
    shape = (*[2] * 5, T, T)
    names = (
        say("causal", "因果"),
        say("documents", "文档"),
        say("chunks", "分块"),
        say("prefix", "前缀"),
        say("picture", "图像"),
    )
    tokens = ("a₁", "a₂", "a₃", "p₁", "p₂", "p₃", "p₄", "b₁", "c₁", "c₂", "c₃", "c₄")
    fields = (
        Field(say("weights", "权重"), found.view(shape)),
        Field(say("mask", "掩码"), masks.float().view(shape)),
    )
    return Mask(tokens, names, fields, on=(True, True, False, False, False))


if __name__ == "__main__":
    print(f"causal {causal(T).sum()} of {T * T} pairs")
    for on in itertools.product((False, True), repeat=4):
        print(on, int(allowed(True, *on).sum()))
