"""ECA-Net: every channel is scaled by one gate, computed from the means of its k nearest channels.

Paper: Qilong Wang, Banggu Wu, Pengfei Zhu, Peihua Li, Wangmeng Zuo, Qinghua Hu,
"ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020, arXiv 1910.03151.
Code: BangguWu/ECANet, b332f6b, models/eca_module.py.
Differs: the kernel size follows the paper's formula unless it is given; the released code never computes it,
its sizes are set by hand (3, 5, 5, 7 for the four stages of ResNet-50). The start values are the released.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
from torch import Tensor, nn


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Return the odd number nearest to t = |log2 C + b| / gamma, of two the larger (equation 12).

    >>> {C: adaptive_kernel_size(C) for C in (64, 127, 128, 256, 512, 1024, 2048)}
    {64: 3, 127: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    """
    t = abs((math.log2(channels) + b) / gamma)
    return 2 * int(t / 2) + 1


class ECALayer(nn.Module):
    """Efficient channel attention (equations 9 and 12).

    g(x) = sigmoid(w * z) with z the mean of each channel, w a kernel that slides along the channels;
    f(g, x) = g * x.

    Args:
        channels: number of channels C; it chooses the kernel size.
        kernel_size: number k of neighbours that a gate is computed from, odd; None for the paper's formula.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, C, 1, 1), each gate in (0, 1); the gates do not sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` is below 1, or `kernel_size` is even or below 1; `x` has another number of
            channels.

    The k weights are all parameters, and a channel reaches only the gates of its neighbours:

    >>> block, (x,) = example()
    >>> sum(parameter.numel() for parameter in block.parameters())
    5
    >>> brighter = x.clone()
    >>> brighter[:, 40] += 1
    >>> (block.attention(brighter) != block.attention(x))[0].flatten().nonzero().flatten().tolist()
    [38, 39, 40, 41, 42]

    Beyond the first and the last channel there are zeros. Equal means 1 and weights that sum to 5 show it:

    >>> _ = nn.init.ones_(block.conv.weight)
    >>> block.attention(torch.ones_like(x))[0].flatten().logit().round()[:5].tolist()
    [3.0, 4.0, 5.0, 5.0, 5.0]
    """

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        self.channels = operator.index(channels)
        k = adaptive_kernel_size(channels) if kernel_size is None else kernel_size
        if k < 1 or k % 2 == 0:
            raise ValueError(f"kernel_size {k} must be odd and at least 1")
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), one gate per channel: (B, C, H, W) -> (B, C, 1, 1)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) with C = {self.channels}")
        squeezed = x.mean(dim=(2, 3))  # (B, C)
        scores = self.conv(squeezed[:, None])  # (B, 1, C), the channels in the place of time
        return torch.sigmoid(scores)[:, 0, :, None, None]  # (B, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x) = g(x) * x: (B, C, H, W) -> (B, C, H, W)."""
        return self.attention(x) * x


def example(B: int = 2, C: int = 128, H: int = 14, W: int = 10, k: int = 5) -> tuple[ECALayer, tuple[Tensor]]:
    """Return a seeded layer and its input: a (B, C, H, W) map whose channels differ in their means."""
    torch.manual_seed(0)
    x = torch.randn(B, C, H, W) + torch.randn(B, C, 1, 1)
    return ECALayer(C, kernel_size=k).eval(), (x,)


def variants(**sizes: int) -> dict[str, tuple[ECALayer, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C = x.shape[1]
    return {
        "no_neighbours": (ECALayer(C, kernel_size=1).eval(), (x,)),
        "k_by_formula": (ECALayer(C).eval(), (x,)),
    }


if __name__ == "__main__":
    block, (x,) = example()
    gates, k = block.attention(x)[0].flatten(), block.conv.weight.numel()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    print(f"{gates.numel()} gates from {k} weights: {gates.min():.3f} to {gates.max():.3f}")
    print("k by C:", {C: adaptive_kernel_size(C) for C in (64, 256, 512, 1024, 2048)})
