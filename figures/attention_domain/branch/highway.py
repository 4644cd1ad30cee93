"""Fifty new layers: what is left of the gradient at each depth, and of a digit on its way through."""

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.style import COLORS, Say, clear_row, english, new_figure, show_image
from snippets.attention_domain.branch.highway import HighwayLayer

LAYERS, DIGITS = 50, 100
SHOWN = (0, 5, 10, 25, 50)  # depths at which the digit is drawn
NO_GATE = 1000.0  # a bias that holds all gates open
BIASES = (NO_GATE, 0.0, -1.0, -2.0, -3.0)


def digits() -> Tensor:
    """Handwritten digits, one unit per pixel: (DIGITS, 64, 1, 1) in [0, 1]."""
    return torch.from_numpy(load_digits().data[:DIGITS] / 16).float()[..., None, None]


def pass_through(gate_bias: float) -> tuple[list[Tensor], Tensor]:
    """Inputs of layers 1 to 50 and the last output; norms of the gradient there, the last one set to 1.

    Weights start by Glorot's rule, which is too small for a ReLU: a signal that nothing carries fades.
    """
    torch.manual_seed(0)
    passed = [digits().requires_grad_()]
    for _ in range(LAYERS):
        layer = HighwayLayer(64, kernel_size=1, gate_bias=gate_bias)
        for convolution in (layer.transform, layer.gate):
            nn.init.xavier_uniform_(convolution.weight)
        passed.append(layer(passed[-1]))
    gradients = torch.autograd.grad(passed[-1], passed, torch.randn_like(passed[-1]))
    norms = torch.stack([gradient.norm() for gradient in gradients])
    return passed, norms / norms[-1]


def name(gate_bias: float, say: Say) -> str:
    """What a start is called in the figure."""
    if gate_bias == NO_GATE:
        return say("no gate", "没有门")
    return f"{say('bias', '偏置')} {gate_bias:.0f}".replace("-", "−")


def figure(say: Say = english) -> Figure:
    """Above: norm of the gradient by depth. Below: one digit by depth, with bias −3 and without a gate."""
    drawn, axes = new_figure(3, len(SHOWN), height=4.6, height_ratios=(3.2, 1, 1))
    curves = drawn.add_subplot(clear_row(axes[: len(SHOWN)]))
    way: dict[float, list[Tensor]] = {}
    for gate_bias, color in zip(BIASES, (COLORS[5], *COLORS[1:5]), strict=True):
        passed, norms = pass_through(gate_bias)
        way[gate_bias] = [x[0].detach().view(8, 8) for x in passed]
        curves.semilogy(norms, "--" if gate_bias == 0 else "-", color=color, label=name(gate_bias, say))
    curves.set_xlim(0, LAYERS)
    curves.set_xlabel(say("layer", "层"))
    curves.set_ylabel(say("gradient", "梯度"))
    curves.legend(loc="lower right")
    for row, gate_bias in enumerate((-3.0, NO_GATE), start=1):
        panels = axes[row * len(SHOWN) : (row + 1) * len(SHOWN)]
        for panel, depth in zip(panels, SHOWN, strict=True):
            show_image(panel, way[gate_bias][depth], str(depth) if row == 1 else "")
        panels[0].set_ylabel(name(gate_bias, say))
    axes[len(SHOWN)].set_title(say("layer 0", "第 0 层"))
    return drawn
