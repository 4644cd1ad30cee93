"""Disentangled non-local block: what two positions have in common, plus what is salient for everyone.

Paper: Minghao Yin, Zhuliang Yao, Yue Cao, Xiu Li, Zheng Zhang, Stephen Lin, Han Hu, "Disentangled Non-Local
Neural Networks", ECCV 2020, arXiv 2006.06668.
Code: Howal/DNL-Object-Detection, 6ae8884, mmdet/ops/nl_gc_block.py; mmsegmentation 1.2.2, dnl_head.py.
Differs: queries, keys and the unary score have no bias, because whitening and softmax remove one. Values are
narrow and `W_z` starts at zero, as in mmsegmentation. The authors' own code has wide values, no `W_z`, a
factor on the pairwise term alone, and for detection `scale` = P^-0.5 / 0.05. Both start convolutions with
N(0, 0.01^2), here torch's start is left. `forward` stores no N x N matrix.
SPDX-License-Identifier: MIT
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DisentangledNonLocal(nn.Module):
    """Disentangled non-local block in two dimensions with P = C / r inner channels.

    g(x) = a_ij = softmax_j((theta_i - mean theta) . (phi_j - mean phi)) + softmax_j(m_j);
    f(g, x)_i = x_i + W_z sum_j a_ij g_j.

    The first softmax is the pairwise term, the second, the same for all i, the unary term.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Args:
        channels: number of channels C.
        reduction: ratio r.
        scale: factor of the pairwise exponent; 1 in the equation above.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, N), queries by keys; the weights of a query sum to two
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: a size is below 1, `reduction` does not divide `channels`, `scale` is not finite, or x has
            another number of dimensions.

    >>> block, (x,) = example()
    >>> torch.equal(DisentangledNonLocal(16)(x), x)
    True
    >>> [round(total.item(), 4) for total in block.attention(x).sum(dim=-1).aminmax()]
    [2.0, 2.0]

    What all positions share is no concern of the pairwise term: a constant vector, added everywhere, leaves
    it as it is. (The unary term, a softmax of its own, does not change either.)

    >>> shifted = x + torch.randn(1, 16, 1, 1)
    >>> torch.allclose(block.attention(shifted), block.attention(x), atol=1e-5)
    True
    """

    def __init__(self, channels: int, reduction: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels {channels} and reduction {reduction} must be at least 1")
        if channels % reduction:
            raise ValueError(f"channels {channels} must be divisible by reduction {reduction}")
        if not math.isfinite(scale):
            raise ValueError(f"scale {scale} must be finite")
        inner = channels // reduction
        self.scale = scale
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        self.m = nn.Conv2d(channels, 1, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1)
        self.W_z = nn.Conv2d(inner, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set `W_z` to zero, so that the block is the identity."""
        for parameter in self.W_z.parameters():
            nn.init.zeros_(parameter)

    def pairwise(self, x: Tensor) -> Tensor:
        """Return the weights that depend on the query: (B, C, H, W) -> (B, N, N), rows sum to one."""
        query, key = self._compared(x)  # (B, N, P), twice
        return (self.scale * _scores(query, key)).softmax(dim=-1).to(x.dtype)

    def unary(self, x: Tensor) -> Tensor:
        """Return the weights that do not: (B, C, H, W) -> (B, 1, N), sums to one."""
        scores: Tensor = self.m(x).flatten(2)  # (B, 1, N)
        return scores.softmax(dim=-1)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the sum of both terms: (B, C, H, W) -> (B, N, N)."""
        return self.pairwise(x) + self.unary(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), without the weights of the pairs: (B, C, H, W) -> (B, C, H, W)."""
        query, key = self._compared(x)  # (B, N, P), twice
        value = _rows(self.g(x))  # (B, N, P)
        common = F.scaled_dot_product_attention(  # the fused kernel wants an axis of heads
            query[:, None], key[:, None], value[:, None], scale=self.scale
        )[:, 0]  # (B, N, P)
        salient = self.unary(x) @ value  # (B, 1, P), the same for all positions
        y = (common + salient).mT  # (B, P, N)
        z: Tensor = x + self.W_z(y.reshape(*y.shape[:2], *x.shape[2:]))
        return z

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys without their means: (B, C, H, W) -> (B, N, P), twice."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        return _whitened(self.theta(x)), _whitened(self.phi(x))


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Return query . key in float32 at least: (B, N, P), (B, N, P) -> (B, N, N).

    Queries are divided by 256 before the product, so that float16 has room for scores beyond 65504.
    """
    return 256 * (query / 256 @ key.mT).to(torch.promote_types(query.dtype, torch.float32))


def _rows(x: Tensor) -> Tensor:
    """(B, P, H, W) -> (B, N, P), the features of a position side by side in memory."""
    return x.flatten(2).mT.contiguous()


def _whitened(x: Tensor) -> Tensor:
    """(B, P, H, W) -> (B, N, P), the mean over all positions subtracted from each channel."""
    rows = _rows(x)  # (B, N, P)
    mean = rows.mean(dim=1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))  # (B, 1, P)
    return (rows - mean).to(x.dtype)


def example(
    B: int = 3, C: int = 16, H: int = 10, W: int = 12, r: int = 2
) -> tuple[DisentangledNonLocal, tuple[Tensor]]:
    """Return a seeded block, `W_z` drawn at random so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = DisentangledNonLocal(C, reduction=r).eval()
    nn.init.normal_(block.W_z.weight, std=0.3)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, inputs = example(**sizes)
    block.scale = block.theta.out_channels**-0.5 / 0.05
    return {"scaled": (block, inputs)}


if __name__ == "__main__":
    block, (x,) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}")
    for name, weights in (("pairwise", block.pairwise(x)), ("unary", block.unary(x))):
        differ = (weights - weights[:, :1]).abs().max()
        print(f"{name:9} rows sum to {weights.sum(-1).mean():.3f}, and differ by up to {differ:.4f}")
    print(f"both      rows sum to {block.attention(x).sum(-1).mean():.3f}")
