"""CondConv: every picture is convolved with a kernel of its own, mixed from a few experts.

Paper: Brandon Yang, Gabriel Bender, Quoc V. Le, Jiquan Ngiam, "CondConv: Conditionally Parameterized
Convolutions for Efficient Inference", NeurIPS 2019, arXiv 1904.04971.
Code: tensorflow/tpu, 7dc921f, models/official/efficientnet/condconv/condconv_layers.py and
models/official/efficientnet/efficientnet_model.py.
Differs: padding is the same on all sides. The released layers pad as "SAME" in TensorFlow, which at stride 2
on an even map has one row and column less in front, so that their windows lie one pixel further on. The
released EfficientNet computes the weights once per block, from the block's input, and uses them in three
convolutions: hand them to `convolve`. It convolves one sample after the other; here the batch is folded.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CondConv2d(nn.Module):
    """Convolution with a kernel per sample, W(x) = sum over i of alpha_i W_i.

    g(x) = alpha = sigmoid(R z + b) with z the mean of each channel; f(g, x) = (sum over i of g_i W_i) * x.

    Args:
        in_channels: number of channels C of the input.
        out_channels: number of channels D of the output.
        kernel_size: side k of the kernels, odd; the map is padded by (k - 1) / 2.
        experts: number n of experts W_i, kernels of the same shape.
        stride: stride of the convolution.
        groups: number of groups G of the convolution.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, n), each weight in (0, 1); the weights do not sum to one
        - forward(x): (B, D, H', W') with H' = ceil(H / stride), likewise W'

    Each row of the parameter `experts` is one flattened kernel.

    Raises:
        ValueError: a size is below 1, `kernel_size` is even, or `groups` does not divide both channels.

    The mixture of kernels gives the mixture of the experts' outputs, at the price of one convolution:

    >>> layer, (x,) = example()
    >>> kernels = layer.experts.unflatten(1, layer.kernel_shape)
    >>> outputs = torch.stack([F.conv2d(x, kernel, padding=2, groups=2) for kernel in kernels], dim=1)
    >>> mixture = (layer.attention(x)[:, :, None, None, None] * outputs).sum(dim=1)
    >>> torch.allclose(layer(x), mixture, atol=1e-5)
    True

    The weights do not compete. If all are one half, four experts give twice their mean:

    >>> _ = nn.init.zeros_(layer.routing.weight), nn.init.zeros_(layer.routing.bias)
    >>> doubled = F.conv2d(x, 2 * kernels.mean(dim=0), padding=2, groups=2)
    >>> torch.allclose(layer(x), doubled, atol=1e-5)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        experts: int = 4,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        widths = {"in_channels": in_channels, "out_channels": out_channels}
        for name, size in {**widths, "experts": experts, "stride": stride, "groups": groups}.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        for name, width in widths.items():
            if width % groups:
                raise ValueError(f"{name} {width} must be divisible by groups {groups}")
        self.stride, self.groups = operator.index(stride), groups
        self.kernel_shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.routing = nn.Linear(in_channels, experts)
        self.experts = nn.Parameter(torch.empty(experts, math.prod(self.kernel_shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the released layers do: normal experts, Glorot's uniform routing without bias."""
        D, _, k, _ = self.kernel_shape
        fan_out = k * k * D // self.groups  # of one expert
        nn.init.normal_(self.experts, std=(2 / fan_out) ** 0.5)
        nn.init.xavier_uniform_(self.routing.weight)
        nn.init.zeros_(self.routing.bias)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of the experts: (B, C, H, W) -> (B, n)."""
        return torch.sigmoid(self.routing(x.mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), each sample convolved with its kernel: (B, C, H, W) -> (B, D, H', W')."""
        return self.convolve(x, self.attention(x))

    def convolve(self, x: Tensor, weights: Tensor) -> Tensor:
        """Mix a kernel per sample and apply it: (B, C, H, W), (B, n) -> (B, D, H', W').

        The batch is folded into the channels, so that one grouped convolution serves all samples.
        """
        B, C, H, W = x.shape
        D, _, k, _ = self.kernel_shape
        if B == 0:  # nothing to fold; any expert gives the empty result
            kernel = self.experts[0].view(self.kernel_shape)
            return F.conv2d(x, kernel, stride=self.stride, padding=k // 2, groups=self.groups)
        kernels = (weights @ self.experts).view(B * D, *self.kernel_shape[1:])  # (B D, C / G, k, k)
        folded = x.reshape(1, B * C, H, W)
        y = F.conv2d(folded, kernels, stride=self.stride, padding=k // 2, groups=B * self.groups)
        return y.view(B, D, *y.shape[2:])  # (B, D, H', W')


def example(
    B: int = 3, C: int = 8, D: int = 20, H: int = 14, W: int = 11, k: int = 5, n: int = 4, G: int = 2
) -> tuple[CondConv2d, tuple[Tensor]]:
    """Return a seeded layer of n experts and its input: a (B, C, H, W) map whose channels differ in means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return CondConv2d(C, D, k, experts=n, groups=G).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[CondConv2d, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {
        "stride": (CondConv2d(C, 2 * C, stride=2).eval(), (x,)),
        "depthwise": (CondConv2d(C, C, groups=C).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}")
    for sample, weights in enumerate(layer.attention(x)):
        print(f"sample {sample}: weights {[round(weight, 2) for weight in weights.tolist()]}")
