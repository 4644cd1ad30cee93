"""Criss-cross attention: every position reads its row and its column; two passes reach all positions.

Paper: Zilong Huang, Xinggang Wang, Lichao Huang, Chang Huang, Yunchao Wei, Wenyu Liu, "CCNet: Criss-Cross
Attention for Semantic Segmentation", ICCV 2019, arXiv 1811.11721.
Code: speedinghzl/CCNet, 1fae6c6, cc_attention/functions.py.
Differs: nothing in the block. The paper's network puts convolutions around it, which are not here.
SPDX-License-Identifier: MIT
"""

import operator

import torch
from torch import Tensor, nn


class CrissCrossAttention(nn.Module):
    """Criss-cross attention, applied `recurrence` times with the same weights.

    The cross of a position is its row and its column, H + W - 1 positions with itself.
    One pass: g(x) = softmax of query . key over the cross; f(g, x) = x + gamma * (sum of g * value).

    The position itself is in its row and in its column; it counts once, its slot in the column has weight 0.
    The block starts as the identity: gamma is zero.

    Args:
        channels: number of channels C.
        reduction: ratio r; queries and keys have C / r channels, values C.
        recurrence: number R of passes.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, H, W, H + W), for each position the weights of its column, then those of its row
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, or `reduction` does not divide `channels`.

    In a map of 5 x 7, one pass makes a position depend on 11 positions and two passes on all 35:

    >>> block, (x,) = example()
    >>> for block.recurrence in (1, 2):
    ...     (slope,) = torch.autograd.grad(block(x.requires_grad_())[0, :, 1, 2].sum(), x)
    ...     print(int(slope[0].any(dim=0).sum()))
    11
    35

    Without query weights all positions of a cross get the same, 1 / 11:

    >>> _ = block.query.weight.data.zero_(), block.query.bias.data.zero_()
    >>> weights = block.attention(x)[0, 1, 2]
    >>> [round(weight, 3) for weight in weights.tolist()]
    [0.091, 0.0, 0.091, 0.091, 0.091, 0.091, 0.091, 0.091, 0.091, 0.091, 0.091, 0.091]
    """

    def __init__(self, channels: int, reduction: int = 8, recurrence: int = 2) -> None:
        super().__init__()
        if channels < 1 or reduction < 1 or recurrence < 1:
            raise ValueError(
                f"channels {channels}, reduction {reduction} and recurrence {recurrence} must be at least 1"
            )
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        self.recurrence = operator.index(recurrence)
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gamma to zero, so that the block is the identity."""
        nn.init.zeros_(self.gamma)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of one pass over x: (B, C, H, W) -> (B, H, W, H + W).

        Queries are divided by 256 before the product, so that float16 has room for scores beyond 65504.
        """
        query, key = self.query(x) / 256, self.key(x)  # (B, P, H, W) each
        column = torch.einsum("bphw,bpiw->bhwi", query, key)  # (B, H, W, H)
        row = torch.einsum("bphw,bphj->bhwj", query, key)  # (B, H, W, W)
        itself = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)[:, None]  # (H, 1, H)
        scores = torch.cat([column.masked_fill(itself, float("-inf")), row], dim=-1)  # (B, H, W, H + W)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return (256 * scores.to(wide)).softmax(dim=-1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return R passes of f(g(x), x): (B, C, H, W) -> (B, C, H, W)."""
        for _ in range(self.recurrence):
            weights, value = self.attention(x), self.value(x)  # (B, H, W, H + W), (B, C, H, W)
            column, row = weights[..., : x.shape[2]], weights[..., x.shape[2] :]
            down = torch.einsum("bhwi,bciw->bchw", column, value)
            across = torch.einsum("bhwj,bchj->bchw", row, value)
            x = x + self.gamma * (down + across)
        return x


def example(
    B: int = 3, C: int = 32, H: int = 5, W: int = 7, r: int = 8, R: int = 2
) -> tuple[CrissCrossAttention, tuple[Tensor]]:
    """Return a seeded block, gamma set to one so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = CrissCrossAttention(C, reduction=r, recurrence=R).eval()
    nn.init.ones_(block.gamma)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    return {"one_pass": example(**sizes | {"R": 1})}


if __name__ == "__main__":
    block, (x,) = example()
    weights = block.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}, weights {tuple(weights.shape)}")
    print(f"the column gets {weights[..., : x.shape[2]].sum(dim=-1).mean():.3f} of the weight of a position")
