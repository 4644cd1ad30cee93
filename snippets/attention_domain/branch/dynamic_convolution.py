"""Dynamic convolution: a softmax mixes several kernels into one, per picture, sharper as training goes on.

Paper: Yinpeng Chen, Xiyang Dai, Mengchen Liu, Dongdong Chen, Lu Yuan, Zicheng Liu, "Dynamic Convolution:
Attention over Convolution Kernels", CVPR 2020, arXiv 1912.03458.
Differs: nothing known; no official code was found. Both layers of the attention have biases here, and the
temperature is saved with the weights, so that a trained layer is loaded with the temperature it ended with.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DynamicConv2d(nn.Module):
    """Convolution with kernel and bias per sample, W(x) = sum over i of pi_i W_i and b(x) likewise.

    g(x) = pi = softmax(A_2 relu(A_1 z) / tau) with z the mean of each channel; f(g, x) = W(x) * x + b(x).

    Args:
        in_channels: number of channels C of the input.
        out_channels: number of channels D of the output.
        kernel_size: side k of the kernels, odd; the map is padded by (k - 1) / 2.
        kernels: number K of kernels W_i of the same shape.
        reduction: ratio r; the hidden layer of the attention has C / r units.
        stride: stride of the convolution.
        groups: number of groups G of the convolution.
        bias: whether each kernel has a bias per output channel.
        temperature: start of tau; `anneal` brings it down to one.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, K), not negative, sums to one
        - forward(x): (B, D, H', W') with H' = ceil(H / stride), likewise W'

    Each row of the parameter `kernels` is one flattened kernel.

    Raises:
        ValueError: a size is below 1, `kernel_size` is even, `reduction` does not divide `in_channels`,
            `groups` does not divide both channels, `temperature` is below 1 or not finite, or `anneal` gets
            no epochs or a negative one.

    A high temperature evens the weights out, so that all kernels learn; the annealed layer chooses:

    >>> layer, (x,) = example()
    >>> for epoch in (0, 5, 10):
    ...     layer.anneal(epoch)
    ...     print(f"temperature {layer.temperature:4.1f}, largest weight {layer.attention(x).max():.3f}")
    temperature 30.0, largest weight 0.256
    temperature 15.5, largest weight 0.261
    temperature  1.0, largest weight 0.454
    """

    temperature: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        kernels: int = 4,
        reduction: int = 4,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        temperature: float = 30.0,
    ) -> None:
        super().__init__()
        widths = {"in_channels": in_channels, "out_channels": out_channels}
        counts = {"kernels": kernels, "reduction": reduction, "stride": stride, "groups": groups}
        for name, size in {**widths, **counts}.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        if not 1 <= temperature < math.inf:
            raise ValueError(f"temperature {temperature} must be at least 1 and finite")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        if in_channels % reduction:
            raise ValueError(f"in_channels {in_channels} must be divisible by reduction {reduction}")
        for name, width in widths.items():
            if width % groups:
                raise ValueError(f"{name} {width} must be divisible by groups {groups}")
        self.stride, self.groups, self.start = operator.index(stride), groups, float(temperature)
        self.kernel_shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.scores = nn.Sequential(
            nn.Linear(in_channels, in_channels // reduction),
            nn.ReLU(),
            nn.Linear(in_channels // reduction, kernels),
        )
        self.kernels = nn.Parameter(torch.empty(kernels, math.prod(self.kernel_shape)))
        self.biases = nn.Parameter(torch.empty(kernels, out_channels)) if bias else None
        self.register_buffer("temperature", torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start each kernel by itself, as before a ReLU, the biases at zero, the temperature at its start."""
        bound = (6 / math.prod(self.kernel_shape[1:])) ** 0.5
        nn.init.uniform_(self.kernels, -bound, bound)
        if self.biases is not None:
            nn.init.zeros_(self.biases)
        self.temperature.fill_(self.start)

    def anneal(self, epoch: int, epochs: int = 10) -> None:
        """Lower the temperature in a straight line, from its start at epoch 0 to one at epoch `epochs`."""
        if not epochs >= 1:
            raise ValueError(f"epochs {epochs} must be at least 1")
        if not epoch >= 0:
            raise ValueError(f"epoch {epoch} must be at least 0")
        self.temperature.fill_(max(1.0, self.start - (self.start - 1) * epoch / epochs))

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of the kernels: (B, C, H, W) -> (B, K)."""
        scores: Tensor = self.scores(x.mean(dim=(2, 3)))  # (B, K)
        return torch.softmax(scores / self.temperature, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), each sample convolved with its kernel: (B, C, H, W) -> (B, D, H', W').

        The batch is folded into the channels, so that one grouped convolution serves all samples.
        """
        B, C, H, W = x.shape
        D, _, k, _ = self.kernel_shape
        weights = self.attention(x)  # (B, K)
        if B == 0:  # nothing to fold; any kernel gives the empty result
            kernel = self.kernels[0].view(self.kernel_shape)
            return F.conv2d(x, kernel, stride=self.stride, padding=k // 2, groups=self.groups)
        kernels = (weights @ self.kernels).view(B * D, *self.kernel_shape[1:])  # (B D, C / G, k, k)
        biases = None if self.biases is None else (weights @ self.biases).view(B * D)
        folded = x.reshape(1, B * C, H, W)
        y = F.conv2d(folded, kernels, biases, self.stride, k // 2, groups=B * self.groups)
        return y.view(B, D, *y.shape[2:])  # (B, D, H', W')


def example(
    B: int = 3,
    C: int = 64,
    D: int = 20,
    H: int = 14,
    W: int = 11,
    k: int = 5,
    K: int = 4,
    G: int = 2,
    r: int = 8,
) -> tuple[DynamicConv2d, tuple[Tensor]]:
    """Return a seeded layer of K kernels and its input: a (B, C, H, W) map whose channels differ in means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return DynamicConv2d(C, D, k, kernels=K, reduction=r, groups=G).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[DynamicConv2d, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    annealed = DynamicConv2d(C, C, groups=C).eval()
    annealed.anneal(10)
    return {
        "stride": (DynamicConv2d(C, 2 * C, stride=2).eval(), (x,)),
        "without_bias": (DynamicConv2d(C, 2 * C, bias=False).eval(), (x,)),
        "annealed": (annealed, (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}")
    for epoch in (0, 5, 10):
        layer.anneal(epoch)
        weights = [round(weight, 3) for weight in layer.attention(x)[0].tolist()]
        print(f"epoch {epoch:2}, temperature {layer.temperature:.1f}: weights of the first sample {weights}")
