"""Four bases are fitted to the colours of a photograph: what belongs to each of them, step by step."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.style import (
    Say,
    clear_row,
    color_bar,
    english,
    name_rows,
    new_figure,
    picture,
    show_image,
    show_weights,
)
from snippets.attention_domain.spatial.em_attention import EMAUnit

SIZE = 64
START = (  # drawn once at random
    (-0.05, -0.24, -0.97),
    (-0.02, 0.87, -0.49),
    (-0.46, 0.28, 0.84),
    (0.09, -0.89, 0.44),
)
BASES = len(START)
STEPS = (1, 3, 10)
SHARPNESS = 4.0  # length of a feature that deviates by one


def features(image: Tensor) -> Tensor:
    """Three colours, centred and scaled: (1, 3, H, W) -> same."""
    x = image - image.mean(dim=(2, 3), keepdim=True)
    return SHARPNESS * x / x.std(dim=(2, 3), keepdim=True)


@torch.no_grad()
def unit() -> EMAUnit:
    """The features are the colours themselves."""
    made = EMAUnit(3, BASES).eval()
    made.bases.copy_(F.normalize(torch.tensor(START), dim=-1))
    made.project.weight.copy_(torch.eye(3)[..., None, None])
    nn.init.zeros_(made.project.get_parameter("bias"))
    return made


def log_likelihood(x: Tensor, mu: Tensor) -> float:
    """Mean over the positions of log mean_k exp(x . mu_k)."""
    return float((x.flatten(2).mT @ mu.mT).exp().mean(dim=-1).log().mean())


@torch.no_grad()
def fits() -> list[tuple[Tensor, float]]:
    """Weights (BASES, SIZE, SIZE) after 1, 3, ... steps and the log-likelihood of the bases."""
    made, x, found = unit(), features(picture("coffee", (SIZE, SIZE))), []
    for made.iterations in STEPS:
        z, mu = made.fit(x)
        found.append((z[0].T.view(BASES, SIZE, SIZE), log_likelihood(x, mu)))
    return found


def figure(say: Say = english) -> Figure:
    """The picture, and below it the weights of each basis, one row per number of steps."""
    drawn, axes = new_figure(1 + len(STEPS), BASES, height=5.8, height_ratios=(1.5, 1, 1, 1))
    show_image(drawn.add_subplot(clear_row(axes[:BASES])), picture("coffee", (SIZE, SIZE)), "x")
    panels = axes[BASES:]
    for row, (weights, _) in enumerate(fits()):
        for k, panel in enumerate(panels[row * BASES : (row + 1) * BASES]):
            show_weights(panel, weights[k], f"$\\mu_{k + 1}$" if row == 0 else "")
    name_rows(panels, [f"T = {steps}" for steps in STEPS])
    color_bar(panels, say)
    return drawn
