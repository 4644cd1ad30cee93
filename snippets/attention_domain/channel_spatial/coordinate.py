"""Coordinate attention: each channel gets a gate for every row and a gate for every column.

Paper: Qibin Hou, Daquan Zhou, Jiashi Feng, "Coordinate Attention for Efficient Mobile Network Design",
CVPR 2021, arXiv 2103.02907.
Code: houqb/CoordAttention, 7619bea, coordatt.py and mbv2_ca.py.
Differs: nothing in the forward pass, which follows the released code. The weights start as PyTorch has them;
the released MobileNetV2 starts with biases zero and normal weights.
SPDX-License-Identifier: MIT
"""

import operator

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """Coordinate attention block.

    g(x) = a_h * a_w, in each channel a column of gates for the rows times a row of gates for the columns;
    f(g, x) = g * x.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layer has m = max(8, C // r) channels.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, H, W), each weight in (0, 1)
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` or `reduction` is below 1.

    A gate knows its row or column by the mean alone, so pixels may move along a row without changing the
    gates of the rows:

    >>> block, (x,) = example()
    >>> moved = x[..., torch.randperm(10)]
    >>> rows, columns = block.gates(x)
    >>> torch.allclose(block.gates(moved)[0], rows, atol=1e-6)
    True

    In each channel the weights are a matrix of rank one, H + W numbers for H * W positions:

    >>> torch.linalg.matrix_rank(block.attention(x), rtol=1e-5).unique().tolist()
    [1]

    With all weights zero both gates are sigmoid(0) and the block passes a quarter of its input:

    >>> for parameter in block.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> torch.equal(block(x), x / 4)
    True
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        hidden = max(8, channels // operator.index(reduction))
        self.shared = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.BatchNorm1d(hidden), nn.Hardswish())
        self.conv_h = nn.Conv1d(hidden, channels, 1)
        self.conv_w = nn.Conv1d(hidden, channels, 1)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a_h and a_w, gates of rows and columns: (B, C, H, W) -> (B, C, H, 1), (B, C, 1, W)."""
        means = torch.cat([x.mean(dim=3), x.mean(dim=2)], dim=2)  # (B, C, H + W), rows then columns
        rows, columns = self.shared(means).split(x.shape[2:], dim=2)  # (B, m, H), (B, m, W)
        a_h = torch.sigmoid(self.conv_h(rows))[:, :, :, None]  # (B, C, H, 1)
        a_w = torch.sigmoid(self.conv_w(columns))[:, :, None, :]  # (B, C, 1, W)
        return a_h, a_w

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the product of both gates: (B, C, H, W) -> (B, C, H, W)."""
        a_h, a_w = self.gates(x)
        return a_h * a_w

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


def example(
    B: int = 2, C: int = 384, H: int = 14, W: int = 10, r: int = 32
) -> tuple[CoordinateAttention, tuple[Tensor]]:
    """Return a seeded block and its input: a (B, C, H, W) map whose rows and columns differ in mean."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, H, 1) + torch.randn(B, C, 1, W)
    return CoordinateAttention(C, reduction=r).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[CoordinateAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {"narrowest": (CoordinateAttention(C, reduction=C).eval(), (x,))}  # m = 8


if __name__ == "__main__":
    block, (x,) = example()
    rows, columns = block.gates(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    for name, gates in (("rows", rows), ("columns", columns)):
        print(f"gates of the {name} {tuple(gates.shape)}: {gates.min():.3f} to {gates.max():.3f}")
