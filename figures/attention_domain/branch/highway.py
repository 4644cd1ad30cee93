"""Fifty new layers: what is left of the gradient at each depth, and of a digit on its way through."""

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from figures.style import COLORS, new_figure, show_image
from snippets.attention_domain.branch.highway import HighwayLayer

LAYERS, DIGITS = 50, 100
SHOWN = (0, 5, 10, 25, 50)  # depths at which the digit is drawn
STARTS = {"no gate": 1000.0, "bias 0": 0.0, "bias −1": -1.0, "bias −2": -2.0, "bias −3": -3.0}


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


def figure() -> Figure:
    """Above: norm of the gradient by depth. Below: one digit by depth, with bias −3 and without a gate."""
    drawn, axes = new_figure(3, len(SHOWN), height=5.4, height_ratios=(2.6, 1, 1))
    for upper in axes[: len(SHOWN)]:
        upper.remove()
    curves = drawn.add_subplot(axes[0].get_gridspec()[0, :])
    way: dict[str, list[Tensor]] = {}
    for (name, gate_bias), color in zip(STARTS.items(), (COLORS[5], *COLORS[1:5]), strict=True):
        passed, norms = pass_through(gate_bias)
        way[name] = [x[0].detach().view(8, 8) for x in passed]
        curves.semilogy(norms, "--" if gate_bias == 0 else "-", color=color, label=name)
    curves.set_xlim(0, LAYERS)
    curves.set_xlabel("layer")
    curves.set_ylabel("gradient")
    curves.legend(loc="lower right")
    for row, name in enumerate(("bias −3", "no gate"), start=1):
        panels = axes[row * len(SHOWN) : (row + 1) * len(SHOWN)]
        for panel, depth in zip(panels, SHOWN, strict=True):
            show_image(panel, way[name][depth], f"layer {depth}" if row == 1 else "")
        panels[0].set_ylabel(name)
    return drawn
