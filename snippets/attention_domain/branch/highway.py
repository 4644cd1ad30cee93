"""Highway network: for every unit, a gate decides how much of a layer's answer replaces its input.

Paper: Rupesh Kumar Srivastava, Klaus Greff, Jürgen Schmidhuber, "Highway Networks", arXiv 1505.00387
(2015); full version: "Training Very Deep Networks", NeurIPS 2015, arXiv 1507.06228.
Code: flukeskywalker/highway-networks, 87d1c8d, src/caffe/layers/cudnn_highway_layer.cu and .cpp,
include/caffe/filler.hpp, examples/highways; read, not run.
Differs: nothing in the forward pass. Convolutions as in the released code; `kernel_size=1` on a
(B, C, 1, 1) input is the dense layer. Starts as the released layers do, whose "xavier" is He's normal
distribution; there, biases learn at twice the rate and without weight decay.
SPDX-License-Identifier: MIT
"""

import math

import torch
from torch import Tensor, nn


class HighwayLayer(nn.Module):
    """Highway layer: y = T * H + (1 - T) * x.

    Two branches: H = relu(W_H x + b_H) transforms the input, the other carries it as it is.
    g(x) = T = sigmoid(W_T x + b_T); f(g, x) = g * H + (1 - g) * x.

    Args:
        channels: number of channels C, of the input and of the output.
        kernel_size: side k of the convolutions, odd, so that the map keeps its size.
        gate_bias: start of b_T; negative, so that a new layer carries most of its input.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, H, W), each gate in (0, 1), one per unit; the carry gate is the rest to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` is below 1, `kernel_size` is even or below 1, or `gate_bias` is not finite.

    A new layer transforms about 12 % and carries 88 %:

    >>> layer, (x,) = example()
    >>> layer.attention(torch.zeros_like(x)).unique().item()
    0.11920291930437088

    Nothing touches the carried input, so a closed gate makes the layer the identity, at any depth:

    >>> _ = nn.init.constant_(layer.gate.bias, -1000)
    >>> deep = nn.Sequential(*[layer] * 50)
    >>> torch.equal(deep(x), x)
    True

    An open gate leaves a plain layer:

    >>> _ = nn.init.constant_(layer.gate.bias, 1000)
    >>> torch.equal(layer(x), layer.transform(x).relu())
    True
    """

    def __init__(self, channels: int, kernel_size: int = 3, gate_bias: float = -2.0) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        if not abs(gate_bias) < math.inf:
            raise ValueError(f"gate_bias {gate_bias} must be finite")
        self.transform = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.gate = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.gate_bias = float(gate_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the released layers do: He's normal weights, b_H at zero, b_T at `gate_bias`."""
        for convolution, bias in ((self.transform, 0.0), (self.gate, self.gate_bias)):
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x) = T, the weight of the transformed branch: (B, C, H, W) -> (B, C, H, W)."""
        return torch.sigmoid(self.gate(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), the mixture of the two branches: (B, C, H, W) -> (B, C, H, W)."""
        transformed = torch.relu(self.transform(x))  # (B, C, H, W)
        gates = self.attention(x)  # (B, C, H, W)
        return gates * transformed + (1 - gates) * x


def example(
    B: int = 2, C: int = 8, H: int = 14, W: int = 10, k: int = 3
) -> tuple[HighwayLayer, tuple[Tensor]]:
    """Return a seeded layer with k x k convolutions and its input, a (B, C, H, W) map."""
    torch.manual_seed(0)
    return HighwayLayer(C, kernel_size=k).eval(), (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[HighwayLayer, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"dense": (HighwayLayer(x.shape[1], kernel_size=1, gate_bias=-1).eval(), (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    gates = layer.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}")
    print(f"gates: {gates.min():.3f} to {gates.max():.3f}, mean {gates.mean():.3f}")
