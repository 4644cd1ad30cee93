"""NMF of a photograph's colours: patterns from two drawings, and what rounds do to error and gradient."""

from functools import cache

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import (
    COLORS,
    Say,
    clear_row,
    color_bar,
    english,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial.hamburger import NMF

SIZE = (80, 72)
RANK = 4
ROUNDS = (1, 2, 3, 6, 12, 24, 48)


def colours(image: Tensor) -> Tensor:
    """How much of each of 27 colours is in the 3 x 3 pixels around a position: (1, 3, H, W) -> (1, 27, N)."""
    levels = torch.linspace(0, 1, 3)[:, None, None]
    red, green, blue = (1 - 2 * (image[:, :, None] - levels).abs()).relu().unbind(1)  # (1, 3, H, W) each
    joint = torch.einsum("bihw, bjhw, bkhw -> bijkhw", red, green, blue).flatten(1, 3)
    return F.avg_pool2d(F.pad(joint, (1, 1, 1, 1), mode="replicate"), 3, 1).flatten(2)


def ham(seed: int, steps: int, one_step: bool = True) -> NMF:
    """A decomposition whose start is drawn with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NMF(27, RANK, steps, one_step)


@cache
def features() -> Tensor:
    """What is decomposed: (1, 27, N)."""
    return colours(picture("astronaut", SIZE))


@cache
def error(seed: int, steps: int) -> float:
    """What the approximation leaves out, as a share of x."""
    x = features()
    bases, codes = ham(seed, steps)(x)
    return float((x - bases @ codes.mT).norm() / x.norm())


@cache
def agreement(seed: int, steps: int) -> float:
    """Cosine of the one-step gradient with the full one, for a random combination of the outputs."""
    gradients = []
    for one_step in (True, False):
        z = features().clone().requires_grad_()
        bases, codes = ham(seed, steps, one_step)(z)
        y = bases @ codes.mT
        cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        gradients.append(torch.autograd.grad(y, z, cotangent)[0].flatten())
    return torch.cosine_similarity(gradients[0], gradients[1], dim=0).item()


def figure(say: Say = english) -> Figure:
    """Rows: codes from two drawings; error and agreement of the gradients by number of rounds."""
    image = picture("astronaut", SIZE)
    drawn, axes = new_figure(4, 4, height=6.6, height_ratios=(1.5, 1, 1, 1.6))
    show_image(drawn.add_subplot(clear_row(axes[:4])), image, "x")
    for seed in (0, 1):
        panels = axes[4 + 4 * seed : 8 + 4 * seed]
        panels[0].set_ylabel(f"{say('drawing', '抽取')} {seed + 1}", color=COLORS[seed])
        bases, codes = ham(seed, steps=6)(features())
        amounts = (codes * bases.norm(dim=1, keepdim=True)).detach()  # as if each pattern had length one
        for r, panel in enumerate(panels):
            title = f"{say('pattern', '模式')} {r + 1}" if seed == 0 else ""
            show_weights(panel, amounts[0, :, r].view(SIZE), title)
    color_bar(axes[4:12], say, say("amount", "含量"))
    below = clear_row(axes[12:]).subgridspec(1, 2)
    for cell, measure, label in (
        (below[0], error, say("error", "误差")),
        (below[1], agreement, say("cosine", "余弦")),
    ):
        panel = drawn.add_subplot(cell)
        for seed, style in ((0, "o-"), (1, "s--")):
            panel.semilogx(ROUNDS, [measure(seed, steps) for steps in ROUNDS], style, base=2)
        panel.set_xticks(ROUNDS, [str(steps) for steps in ROUNDS])
        panel.minorticks_off()
        panel.set_xlabel("K")
        panel.set_ylabel(label)
        panel.set_ylim(0, 1)
    return drawn
