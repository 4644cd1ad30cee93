"""Asymmetric non-local blocks: every position reads 110 averages of a map instead of all its positions.

Paper: Zhen Zhu, Mengde Xu, Song Bai, Tengteng Huang, Xiang Bai, "Asymmetric Non-local Neural Networks for
Semantic Segmentation", ICCV 2019, arXiv 1908.07678.
Code: MendelXu/ANN, f4eabeb, models/seg/utils/apnb.py and afnb.py.
Differs: values are averaged before their convolution, not after it, which is the same and takes fewer
operations; APNB computes the map that is both query and key once; keys and values have one width P.
SPDX-License-Identifier: MIT
"""

import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PYRAMID = (1, 3, 6, 8)
"""Sides of the grids: 1 + 9 + 36 + 64 = 110 anchors."""


def pyramid(x: Tensor, sides: Sequence[int] = PYRAMID) -> Tensor:
    """Return the anchors, the means over all cells of all grids: (B, P, H, W) -> (B, P, S, 1)."""
    if x.dim() != 4:
        raise ValueError(f"x {tuple(x.shape)} must be (B, P, H, W)")
    grids = [F.adaptive_avg_pool2d(x, side).flatten(2) for side in sides]  # (B, P, side^2) each
    return torch.cat(grids, dim=-1)[..., None]


class AnchorBlock(nn.Module):
    """What both blocks share: layers, weights, and the fusion of x with what it reads from a source."""

    def __init__(self, source_channels: int, channels: int, reduction: int, sides: Sequence[int]) -> None:
        super().__init__()
        if source_channels < 1 or channels < 1 or reduction < 1:
            channels_of_both = (source_channels, channels)
            raise ValueError(f"channels {channels_of_both} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        if not sides or min(sides) < 1:
            raise ValueError(f"sides {tuple(sides)} must hold one or more numbers of at least 1")
        self.sides = tuple(operator.index(side) for side in sides)
        self.inner = channels // reduction
        self.key = self.embedding(source_channels)
        self.value = nn.Conv2d(source_channels, self.inner, 1)
        self.W = nn.Conv2d(self.inner, channels, 1)
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels), nn.Dropout2d(0.05)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set W to zero, so that no context is added."""
        for parameter in self.W.parameters():
            nn.init.zeros_(parameter)

    def embedding(self, channels: int) -> nn.Sequential:
        """Return a layer for queries or keys: (B, channels, H, W) -> (B, P, H, W)."""
        return nn.Sequential(nn.Conv2d(channels, self.inner, 1), nn.BatchNorm2d(self.inner), nn.ReLU())

    def weigh(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the weights of the anchors of `key`: (B, P, H, W), (B, P, H', W') -> (B, N, S)."""
        root = self.inner**-0.25  # half of 1 / sqrt(P) on each side keeps float16 in its range
        scores = (root * _rows(query)) @ (root * _rows(pyramid(key, self.sides))).mT  # (B, N, S)
        return torch.softmax(scores, dim=-1)

    def read(self, query: Tensor, key: Tensor, source: Tensor, x: Tensor) -> Tensor:
        """Return x fused with the weighted anchors of `source`: (B, C, H, W), without storing the weights."""
        key = pyramid(key, self.sides)  # (B, P, S, 1)
        value = self.value(pyramid(source, self.sides))  # (B, P, S, 1)
        q, k, v = (_rows(t)[:, None] for t in (query, key, value))  # the fused kernel wants an axis of heads
        y = F.scaled_dot_product_attention(q, k, v)  # (B, 1, N, P), scaled by 1 / sqrt(P)
        context = self.W(y[:, 0].mT.reshape(query.shape))  # (B, C, H, W)
        fused: Tensor = self.fuse(torch.cat([context, x], dim=1))
        return fused


class APNB(AnchorBlock):
    """Asymmetric pyramid non-local block: a map reads its own anchors.

    k = relu(BN(conv x)) is query and key; anchors are the means of keys and of values over cells of grids.
    g(x) = softmax over the anchors of k . anchor / sqrt(P); f(g, x) = fuse([W sum of g * value, x]).

    W starts at zero: a new block adds no context. It is not the identity; no skip leads around it.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Args:
        channels: number of channels C.
        reduction: ratio r; queries, keys and values have P = C / r channels.
        sides: sides of the grids; their squares sum to S.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, S), the weights of a position sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `sides` is empty, or `reduction` does not divide `channels`.

    >>> block, (x,) = example()
    >>> block.attention(x).shape
    torch.Size([3, 130, 110])

    A single cell leaves no choice, every position reads the mean:

    >>> bool((APNB(28, sides=(1,)).attention(x) == 1).all())
    True

    Values may be averaged before their convolution, keys may not, because of their ReLU:

    >>> for layer in (block.value, block.key):
    ...     print(torch.allclose(layer(pyramid(x)), pyramid(layer(x)), atol=1e-5))
    True
    False
    """

    def __init__(self, channels: int, reduction: int = 2, sides: Sequence[int] = PYRAMID) -> None:
        super().__init__(channels, channels, reduction, sides)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each anchor for each position: (B, C, H, W) -> (B, N, S)."""
        key = self.key(x)
        return self.weigh(key, key)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        key = self.key(x)
        return F.relu(self.read(key, key, x, x))


class AFNB(AnchorBlock):
    """Asymmetric fusion non-local block: a high-level map reads the anchors of a low-level map.

    As APNB, with a layer of its own for the query, and without the last ReLU.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Args:
        low_channels: number of channels C' of the low-level map.
        high_channels: number of channels C of the high-level map.
        reduction: ratio r; queries, keys and values have P = C / r channels.
        sides: sides of the grids; their squares sum to S.

    Shape:
        - low: (B, C', H', W'); high: (B, C, H, W); any sizes
        - attention(low, high): (B, N, S), the weights of a position of `high` sum to one
        - forward(low, high): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `sides` is empty, `reduction` does not divide `high_channels`, or the
            maps have different batch sizes.

    With grids of 1 x 1 and 2 x 2 there are five anchors, whatever the sizes of the maps:

    >>> low, high = torch.randn(2, 6, 12, 9), torch.randn(2, 8, 5, 7)
    >>> weights = AFNB(6, 8, reduction=2, sides=(1, 2)).attention(low, high)
    >>> weights.shape, torch.allclose(weights.sum(dim=-1), torch.ones(2, 35))
    (torch.Size([2, 35, 5]), True)
    """

    def __init__(
        self, low_channels: int, high_channels: int, reduction: int = 8, sides: Sequence[int] = PYRAMID
    ) -> None:
        super().__init__(low_channels, high_channels, reduction, sides)
        self.query = self.embedding(high_channels)

    def attention(self, low: Tensor, high: Tensor) -> Tensor:
        """Return g(low, high), the weights of the anchors of `low` for the positions of `high`: (B, N, S)."""
        return self.weigh(*self._compared(low, high))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return f(g(low, high), low, high): (B, C', H', W'), (B, C, H, W) -> (B, C, H, W)."""
        return self.read(*self._compared(low, high), low, high)

    def _compared(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of `high`, keys of `low`: (B, C', H', W'), (B, C, H, W) -> (B, P, H, W), (B, P, H', W')."""
        if low.shape[0] != high.shape[0]:
            raise ValueError(
                f"low {tuple(low.shape)} and high {tuple(high.shape)} must be (B, C', H', W') and "
                "(B, C, H, W) with the same B"
            )
        return self.query(high), self.key(low)


def _rows(x: Tensor) -> Tensor:
    """(B, P, H, W) -> (B, N, P), the features of a position side by side in memory."""
    return x.flatten(2).mT.contiguous()


def example(B: int = 3, C: int = 28, H: int = 10, W: int = 13, r: int = 2) -> tuple[APNB, tuple[Tensor]]:
    """Return a seeded APNB, W set so that it adds something, and its input, a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = APNB(C, reduction=r).eval()
    nn.init.normal_(block.W.weight, std=0.5)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x,) = example(**sizes)
    B, C = x.shape[:2]
    low, ratio = torch.randn(B, C // 2, 17, 9), C // block.inner  # the maps may differ in size
    blocks = {"sides": APNB(C, ratio, sides=[2, 3]), "fusion": AFNB(C // 2, C, ratio)}
    for other in blocks.values():
        nn.init.normal_(other.W.weight, std=0.5)
    return {"sides": (blocks["sides"].eval(), (x,)), "fusion": (blocks["fusion"].eval(), (low, x))}


if __name__ == "__main__":
    block, (x,) = example()
    weights = block.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}, weights {tuple(weights.shape)}")
    print(f"the mean of the whole map gets {weights[..., 0].mean():.4f} of the weight of a position")
