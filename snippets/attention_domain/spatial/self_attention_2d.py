"""Spatial self-attention of SAGAN: every position adds a mixture of all positions, faded in from zero.

Paper: Han Zhang, Ian Goodfellow, Dimitris Metaxas, Augustus Odena, "Self-Attention Generative Adversarial
Networks", ICML 2019, arXiv 1805.08318.
Code: brain-research/self-attention-gan, ad9612e, non_local.py (TensorFlow 1: read, not run); run beside the
module: ajbrock/BigGAN-PyTorch, 9845943, layers.py, which took it over.
Differs: three definitions are in circulation. The default is that of the final paper; `value_reduction=1` is
the first arXiv version, `value_reduction=2, subsample=True, bias=False` the released code. Spectral
normalisation, a wrapper around the convolutions, is left to the caller. Convolutions start as torch starts
them (released code: Xavier's method). `forward` stores no N x N matrix.
SPDX-License-Identifier: MIT
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention2d(nn.Module):
    """Self-attention between the positions of a map, with a learnt factor in front.

    g(x) = the weights a_ij = softmax_j(query_i . key_j), without a scale;
    f(g, x)_i = x_i + gamma out(sum_j a_ij value_j), with gamma = 0 at the start.

    Args:
        channels: number of channels C.
        reduction: queries and keys have D = C / reduction channels.
        value_reduction: values have P = C / value_reduction channels; 1 leaves `out` away, as P = C.
        subsample: max-pool keys and values by 2 x 2, but no side of one; N' = H W / 4, not N' = N = H W.
        bias: whether the convolutions have biases.
        fused: `forward` uses torch's fused kernel, which stores no N x N' matrix but has neither second
            derivatives nor forward mode. A gradient penalty needs `fused=False`, or torch's math kernel:
            `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Shape:
        - x: (B, C, H, W), any H and W
        - attention(x): (B, N, N'), queries by keys; the weights of a query sum to one
        - forward(x): (B, C, H, W)

    Raises:
        ValueError: `channels` is below 1 or not divisible by a reduction, `value_reduction` is larger than
            `reduction`, or x has another number of dimensions.

    A new block changes nothing:

    >>> block, (x,) = example()
    >>> torch.equal(SelfAttention2d(32)(x), x)
    True

    A constant map has nothing to choose from, and each of 10 x 12 keys gets 1 / 120:

    >>> weights = block.attention(torch.ones_like(x))
    >>> [round(1 / weight.item(), 3) for weight in weights.aminmax()]
    [120.0, 120.0]

    Positions are known by what they hold only: turn the map over, and the output is turned over.

    >>> torch.allclose(block(x.flip(2, 3)), block(x).flip(2, 3), atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 8,
        value_reduction: int = 8,
        subsample: bool = False,
        bias: bool = True,
        fused: bool = True,
    ) -> None:
        super().__init__()
        ratios = {"reduction": reduction, "value_reduction": value_reduction}
        for name, size in {"channels": channels, **ratios}.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        for name, ratio in ratios.items():
            if channels % ratio:
                raise ValueError(f"channels {channels} must be divisible by {name} {ratio}")
        if value_reduction > reduction:
            raise ValueError(f"value_reduction {value_reduction} must be at most reduction {reduction}")
        self.subsample = subsample
        self.fused = fused
        width, value_width = channels // reduction, channels // value_reduction
        self.query = nn.Conv2d(channels, width, 1, bias=bias)
        self.key = nn.Conv2d(channels, width, 1, bias=bias)
        self.value = nn.Conv2d(channels, value_width, 1, bias=bias)
        self.out = nn.Conv2d(value_width, channels, 1, bias=bias) if value_reduction > 1 else nn.Identity()
        self.gamma = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gamma to zero, so that the block is the identity."""
        nn.init.zeros_(self.gamma)

    def pool(self, x: Tensor) -> Tensor:
        """Return the maxima of 2 x 2 windows, if `subsample`: (B, D, H, W) -> (B, D, H / 2, W / 2)."""
        return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3]))) if self.subsample else x

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each key for each query: (B, C, H, W) -> (B, N, N')."""
        query, key = self._compared(x)  # (B, N, D), (B, N', D)
        return _scores(query, key).softmax(dim=-1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), without the weights themselves: (B, C, H, W) -> (B, C, H, W).

        The fused kernel needs an axis of heads and keys as wide as the values, or torch falls back to the
        N x N' matrix. Zeros beside queries and keys widen them and leave their products as they are.
        """
        value = _rows(self.pool(self.value(x)))  # (B, N', P)
        if self.fused:
            query, key = self._compared(x)  # (B, N, D), (B, N', D)
            zeros = (0, value.shape[-1] - key.shape[-1])
            query, key = F.pad(query, zeros), F.pad(key, zeros)  # (B, N, P), (B, N', P)
            head = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)
            mixed = head[:, 0].mT  # (B, P, N)
        else:
            mixed = (self.attention(x) @ value).mT  # (B, P, N)
        mixed = mixed.reshape(*mixed.shape[:2], *x.shape[2:])  # (B, P, H, W)
        y: Tensor = x + self.gamma * self.out(mixed)
        return y

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys: (B, C, H, W) -> (B, N, D), (B, N', D)."""
        if x.dim() != 4:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W)")
        return _rows(self.query(x)), _rows(self.pool(self.key(x)))


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Return query . key in float32 at least: (B, N, D), (B, N', D) -> (B, N, N').

    Queries are divided by 256 before the product, so that float16 has room for scores beyond 65504.
    """
    return 256 * (query / 256 @ key.mT).to(torch.promote_types(query.dtype, torch.float32))


def _rows(x: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, N, D), the features of a position side by side in memory."""
    return x.flatten(2).mT.contiguous()


def example(
    B: int = 3, C: int = 32, H: int = 10, W: int = 12, r: int = 8
) -> tuple[SelfAttention2d, tuple[Tensor]]:
    """Return a seeded block, gamma set to one so that it adds something, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    block = SelfAttention2d(C, reduction=r, value_reduction=r).eval()
    nn.init.ones_(block.gamma)
    return block, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C, r = x.shape[1], sizes.get("r", 8)
    blocks = {
        "first_version": SelfAttention2d(C, r, value_reduction=1),
        "released": SelfAttention2d(C, r, value_reduction=2, subsample=True, bias=False),
        "explicit": SelfAttention2d(C, r, value_reduction=r, fused=False),
    }
    for block in blocks.values():
        nn.init.ones_(block.gamma)
    return {name: (block.eval(), (x,)) for name, block in blocks.items()}


if __name__ == "__main__":
    block, (x,) = example()
    weights = block.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(block(x).shape)}, weights {tuple(weights.shape)}")
    print(f"rows sum to {weights.sum(-1).min():.4f} ... {weights.sum(-1).max():.4f}")
    for gamma in (0.0, 0.5, 1.0):
        nn.init.constant_(block.gamma, gamma)
        print(f"gamma {gamma}: adds {(block(x) - x).abs().mean():.3f} on average")
