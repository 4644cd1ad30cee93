"""BAM: a score for every channel and one for every position, joined into one gate for each value.

Paper: Jongchan Park, Sanghyun Woo, Joon-Young Lee, In So Kweon, "BAM: Bottleneck Attention Module",
BMVC 2018, arXiv 1807.06514.
Code: Jongchan/attention-module, 459efad, MODELS/bam.py.
Differs: the scores are added, as in the paper; the released code and its weights multiply them
(`multiply=True`). Batch normalisation stands between the layers of a branch, as in the released code. The
released ResNet starts with biases zero and normal weights in the convolutions; here they start as PyTorch has
them.
SPDX-License-Identifier: MIT
"""

import operator

import torch
from torch import Tensor, nn


def convolution(channels: int, dilation: int) -> nn.Sequential:
    """A 3 x 3 convolution that keeps H and W, normalised, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class BAM(nn.Module):
    """Bottleneck attention module.

    g(x) = sigmoid(M_c(x) + M_s(x)), scores of the channels and of the positions; f(g, x) = x + g * x.

    Args:
        channels: number of channels C.
        reduction: ratio r; the hidden layers of both branches have C / r channels.
        dilation: distance between the taps of the two 3 x 3 convolutions.
        multiply: g(x) = sigmoid(M_c(x) * M_s(x)), as in the released code.

    Shape:
        - x: (B, C, H, W), any H and W; in training the channel branch needs B > 1
        - attention(x): (B, C, H, W), each weight in (0, 1)
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, or `reduction` does not divide `channels`.

    With all weights zero each weight is sigmoid(0), and the block adds half of its input:

    >>> block, (x,) = example()
    >>> for parameter in block.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> torch.equal(block(x), 1.5 * x)
    True

    Let both branches say no, with scores of -3. Added they close the gate, multiplied they open it:

    >>> for branch in (block.channel_branch, block.spatial_branch):
    ...     _ = nn.init.constant_(branch[-1].bias, -3.0)
    >>> round(block.attention(x).mean().item(), 4)
    0.0025
    >>> block.multiply = True
    >>> round(block.attention(x).mean().item(), 4)
    0.9999
    """

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4, multiply: bool = False) -> None:
        super().__init__()
        if channels < 1 or reduction < 1 or dilation < 1:
            raise ValueError(
                f"channels {channels}, reduction {reduction} and dilation {dilation} must be at least 1"
            )
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        hidden, dilation = channels // reduction, operator.index(dilation)
        self.multiply = multiply
        self.channel_branch = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels),
        )
        self.spatial_branch = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            convolution(hidden, dilation),
            convolution(hidden, dilation),
            nn.Conv2d(hidden, 1, 1),
        )

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one weight for each value: (B, C, H, W) -> (B, C, H, W)."""
        total = x.sum(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))  # (B, C)
        mean = (total / (x.shape[2] * x.shape[3])).to(x.dtype)  # divided here, its gradient is no map
        channel = self.channel_branch(mean)[:, :, None, None]  # (B, C, 1, 1)
        spatial = self.spatial_branch(x)  # (B, 1, H, W)
        scores: Tensor = channel * spatial if self.multiply else channel + spatial  # (B, C, H, W)
        return scores.sigmoid_()

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = x + g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return (1 + self.attention(x)) * x


def example(B: int = 2, C: int = 64, H: int = 14, W: int = 10, r: int = 16) -> tuple[BAM, tuple[Tensor]]:
    """Return a seeded block and its input: a (B, C, H, W) map whose channels differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return BAM(C, reduction=r).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[BAM, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    return {"multiply": (BAM(x.shape[1], multiply=True).eval(), (x,))}


if __name__ == "__main__":
    block, (x,) = example()
    weights = block.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"weights added: {weights.min():.3f} to {weights.max():.3f}")
    block.multiply = True
    weights = block.attention(x)
    print(f"weights multiplied: {weights.min():.3f} to {weights.max():.3f}")
