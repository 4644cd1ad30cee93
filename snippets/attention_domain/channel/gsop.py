"""GSoP-Net: every channel is scaled by one gate, computed from how the channels vary together.

Paper: Zilin Gao, Jiangtao Xie, Qilong Wang, Peihua Li, "Global Second-order Pooling Convolutional Networks",
CVPR 2019, arXiv 1811.12006.
Code: ZilinGao/Global-Second-order-Pooling-Convolutional-Networks, 662a699, torchvision/models/resnet.py.
Differs: nothing in the channel mode of the released code, which this file follows. In the position mode, sums
over m channels are divided by m; the code divides them by the number of positions. The weights start as
PyTorch has them; the released network draws those of all convolutions by Kaiming's rule for the fan-out.
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def covariance(x: Tensor) -> Tensor:
    """Return how n rows vary together: (B, n, N) -> (B, n, n), symmetric, variances on the diagonal.

    Raises:
        ValueError: x is not (B, n, N).

    >>> x = torch.tensor([[[0.0, 2.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 4.0, 0.0]]])
    >>> covariance(x)[0].tolist()
    [[1.0, 0.0, -2.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 4.0]]
    """
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, n, N)")
    centred = x - x.mean(dim=2, keepdim=True)
    scaled: Tensor = centred / x.shape[2] ** 0.5  # a sum over N may be too large for float16
    return scaled @ scaled.transpose(1, 2)


class RowConvolution(nn.Module):
    """Normalise each row of a matrix and read it with four filters of its own: (B, n, n) -> (B, 4 n)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(size)
        self.conv = nn.Conv1d(size, 4 * size, kernel_size=size, groups=size)

    def forward(self, matrix: Tensor) -> Tensor:
        """Return four numbers for each row."""
        numbers: Tensor = self.conv(self.norm(matrix))  # (B, 4 n, 1)
        return numbers.flatten(1)  # (B, 4 n)


class GSoPBlock(nn.Module):
    """Global second-order pooling, channel mode.

    g(x) = sigmoid(W rows(P) + b) with P the covariance of `width` mixtures of the channels; f(g, x) = g * x.

    Args:
        channels: number of channels C.
        width: number of mixtures m; P is m x m.
        stride: only every stride-th row and column of the map is looked at.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, 1, 1), each gate in (0, 1); the gates do not sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels`, `width` or `stride` is below 1.

    All pixels shuffled the same way leave the gates alone. One channel moved against the others keeps its
    mean and its variance, yet the gates change:

    >>> block, (x,) = example()
    >>> shuffled = x.flatten(2)[:, :, torch.randperm(140)].view_as(x)
    >>> torch.allclose(block.attention(shuffled), block.attention(x), atol=1e-6)
    True
    >>> moved = x.clone()
    >>> moved[:, 0] = x[:, 0].roll(1, dims=2)
    >>> torch.allclose(block.attention(moved), block.attention(x), atol=1e-4)
    False
    """

    def __init__(self, channels: int, width: int = 128, stride: int = 1) -> None:
        super().__init__()
        if channels < 1 or width < 1 or stride < 1:
            raise ValueError(f"channels {channels}, width {width} and stride {stride} must be at least 1")
        self.mix = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, width, 1, operator.index(stride)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.rows = RowConvolution(width)
        self.expand = nn.Linear(4 * width, channels)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per channel: (B, C, H, W) -> (B, C, 1, 1)."""
        matrix = covariance(self.mix(x).flatten(2))  # (B, m, m)
        gates = torch.sigmoid(self.expand(self.rows(matrix)))  # (B, C)
        return gates[:, :, None, None]  # (B, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


class GSoPPositionBlock(nn.Module):
    """Global second-order pooling, position mode: one gate for each of `side` x `side` parts of the map.

    g(x) = sigmoid(W relu(rows(P)) + b) with P the covariance of the parts over m mixtures of the channels;
    f(g, x) = relu(g * x).

    Args:
        channels: number of channels C.
        width: number of mixtures m.
        side: number n of parts in each direction; P is n^2 x n^2.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, 1, H, W), each gate in (0, 1)
        - forward(x): (B, C, H, W), not negative: a ReLU follows

    Raises:
        ValueError: `channels`, `width` or `side` is below 1.
    """

    def __init__(self, channels: int, width: int = 128, side: int = 8) -> None:
        super().__init__()
        if channels < 1 or width < 1 or side < 1:
            raise ValueError(f"channels {channels}, width {width} and side {side} must be at least 1")
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
        self.shrink = nn.AdaptiveAvgPool2d(side)
        self.rows = RowConvolution(side**2)
        self.expand = nn.Sequential(nn.ReLU(), nn.Linear(4 * side**2, side**2))

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per position: (B, C, H, W) -> (B, 1, H, W)."""
        small = self.shrink(self.mix(x))  # (B, m, n, n)
        matrix = covariance(small.flatten(2).transpose(1, 2))  # (B, n n, n n)
        gates = torch.sigmoid(self.expand(self.rows(matrix))).view_as(small[:, :1])  # (B, 1, n, n)
        return F.adaptive_avg_pool2d(gates, (x.shape[2], x.shape[3]))  # (B, 1, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = relu(g(x) * x): (B, C, H, W) -> (B, C, H, W)."""
        return torch.relu(self.attention(x) * x)


def example(
    B: int = 2, C: int = 64, H: int = 14, W: int = 10, m: int = 128
) -> tuple[GSoPBlock, tuple[Tensor]]:
    """Return a seeded block and its input: a (B, C, H, W) map whose channels differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return GSoPBlock(C, width=m).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {
        "stride": (GSoPBlock(C, stride=2).eval(), (x,)),
        "position": (GSoPPositionBlock(C).eval(), (x,)),
    }


if __name__ == "__main__":
    block, (x,) = example()
    gates = block.attention(x)[0].flatten()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"covariance of the mixtures: {tuple(covariance(block.mix(x).flatten(2)).shape)}")
    print(f"gates of the first sample: {gates.min():.3f} to {gates.max():.3f}, mean {gates.mean():.3f}")
