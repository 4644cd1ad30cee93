"""CBAM: a gate for every channel, then a gate for every position of the gated map.

Paper: Sanghyun Woo, Jongchan Park, Joon-Young Lee, In So Kweon, "CBAM: Convolutional Block Attention Module",
ECCV 2018, arXiv 1807.06521.
Code: Jongchan/attention-module, 459efad, MODELS/cbam.py and MODELS/model_resnet.py.
Differs: batch normalisation follows the 7 x 7 convolution, as in the released code; `batch_norm=False` is the
paper's formula. The maximum comes before the mean, as in the code; the formula has the mean first. Weights
start as PyTorch has them; the released ResNet starts that normalisation with weight zero, all biases with
zero and the convolution with normal weights.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


def pool(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return mean and maximum over a dimension, which stays with size 1.

    Of several equal maxima one gets the whole gradient, as in the released code; `amax` would share it. The
    sum is taken in float32 at least and divided afterwards: so the gradient of the mean is one number per
    sum, never a map.
    """
    total = x.sum(dim, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / x.shape[dim]).to(x.dtype), x.max(dim, keepdim=True).values


class ChannelGate(nn.Module):
    """M_c(x) = sigmoid(MLP(mean of x) + MLP(maximum of x)), one MLP for both.

    Shape:
        - x: (B, C, H, W)
        - output: (B, C, 1, 1), each gate in (0, 1)
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the gate of each channel: (B, C, H, W) -> (B, C, 1, 1)."""
        mean, maximum = (pooled.squeeze(2) for pooled in pool(x.flatten(2), dim=2))  # (B, C) each
        gates = torch.sigmoid(self.mlp(mean) + self.mlp(maximum))  # (B, C)
        return gates[:, :, None, None]  # (B, C, 1, 1)


class SpatialGate(nn.Module):
    """M_s(x) = sigmoid(conv_kxk([maximum; mean over the channels of x])).

    Shape:
        - x: (B, C, H, W)
        - output: (B, 1, H, W), each gate in (0, 1)
    """

    def __init__(self, kernel_size: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gate of each position: (B, C, H, W) -> (B, 1, H, W)."""
        mean, maximum = pool(x, dim=1)  # (B, 1, H, W) each
        maps = torch.cat([maximum, mean], dim=1)  # (B, 2, H, W)
        return torch.sigmoid(self.norm(self.conv(maps)))  # (B, 1, H, W)


class CBAM(nn.Module):
    """Convolutional block attention module.

    g(x) = M_c(x) * M_s(M_c(x) * x), a product of a column and a map; f(g, x) = g * x.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layer of the MLP has C / r units.
        kernel_size: side k of the convolution of the spatial gate, odd.
        batch_norm: whether batch normalisation follows that convolution.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, H, W), each weight in (0, 1)
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `reduction` does not divide `channels`, or `kernel_size` is even.

    A weight is a product of two gates, so all 64 x 14 x 10 weights of a sample are a matrix of rank one:

    >>> block, (x,) = example()
    >>> torch.linalg.matrix_rank(block.attention(x).flatten(2), rtol=1e-5).tolist()
    [1, 1]

    With all weights zero each of the gates is sigmoid(0) and the block passes a quarter of its input:

    >>> for parameter in block.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> torch.equal(block(x), x / 4)
    True
    """

    def __init__(
        self, channels: int, reduction: int = 16, kernel_size: int = 7, batch_norm: bool = True
    ) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        self.channel_gate = ChannelGate(channels, reduction)
        self.spatial_gate = SpatialGate(kernel_size, batch_norm)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the product of both gates: (B, C, H, W) -> (B, C, H, W)."""
        channel: Tensor = self.channel_gate(x)  # (B, C, 1, 1)
        spatial: Tensor = self.spatial_gate(channel * x)  # (B, 1, H, W)
        return channel * spatial

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x, one gate after the other: (B, C, H, W) -> (B, C, H, W)."""
        x = self.channel_gate(x) * x
        gated: Tensor = self.spatial_gate(x) * x
        return gated


def example(
    B: int = 2, C: int = 64, H: int = 14, W: int = 10, r: int = 16, k: int = 7
) -> tuple[CBAM, tuple[Tensor]]:
    """Return a seeded block and its input: a (B, C, H, W) map whose channels differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return CBAM(C, reduction=r, kernel_size=k).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[CBAM, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"plain": (CBAM(x.shape[1], batch_norm=False).eval(), (x,))}


if __name__ == "__main__":
    block, (x,) = example()
    channel = block.channel_gate(x)
    spatial = block.spatial_gate(channel * x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    for name, gates in (("channel", channel), ("spatial", spatial)):
        print(f"{name} gates {tuple(gates.shape)}: {gates[0].min():.3f} to {gates[0].max():.3f}")
