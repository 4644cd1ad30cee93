"""Attention-augmented convolution: some output channels are convolved, the others come from self-attention.

Paper: Irwan Bello, Barret Zoph, Ashish Vaswani, Jonathon Shlens, Quoc V. Le, "Attention Augmented
Convolutional Networks", ICCV 2019, arXiv 1904.09925.
Differs: no layer has a bias; d_k and d_v are numbers, not shares of the output channels. The relative logits
enter the fused kernel as additional channels of queries and keys, so that `forward` stores no N x N matrix.
SPDX-License-Identifier: MIT
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AugmentedConv2d(nn.Module):
    """A k x k convolution beside multi-head self-attention with relative positions in two dimensions.

    g(x) = softmax over j of q_i . (k_j + r^W[x_j - x_i] + r^H[y_j - y_i]) in each head, with q divided by
    the root of its width; f(g, x) = [conv(x), W_o g v].

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        kernel_size: side k of the convolution, odd.
        key_channels: width d_k of queries and keys, all heads together.
        value_channels: how many output channels d_v come from attention.
        num_heads: number of heads, which share r^W and r^H.
        size: height and width of x.

    Shape:
        - x: (B, in_channels, H, W) with H, W = size
        - attention(x): (B, heads, N, N), queries by keys; rows sum to one
        - forward(x): (B, out_channels, H, W), the channels of attention last

    Raises:
        ValueError: a size is below 1, `kernel_size` is even, `num_heads` does not divide `key_channels` and
            `value_channels`, `value_channels` leaves nothing to the convolution, or x is not of size `size`.

    Along a row of 3 positions there are 5 offsets, -2 to 2. Each query picks its own 3 of them:

    >>> absolute_from_relative(torch.arange(-2, 3).expand(3, 5))
    tensor([[ 0,  1,  2],
            [-1,  0,  1],
            [-2, -1,  0]])

    On a constant map all keys are equal, and only the offset can tell them apart: 27 x 21 of them.

    >>> layer, (x,) = example()
    >>> query, key, _ = layer.double().heads(torch.ones_like(x).double())
    >>> len((query @ key.mT)[0, 0].round(decimals=10).unique())
    567
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        key_channels: int,
        value_channels: int,
        num_heads: int,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, key_channels, value_channels, num_heads, *size) < 1:
            raise ValueError(
                f"in_channels {in_channels}, out_channels {out_channels}, key_channels {key_channels}, "
                f"value_channels {value_channels}, num_heads {num_heads} and size {tuple(size)} "
                "must be at least 1"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and at least 1")
        for name, width in (("key_channels", key_channels), ("value_channels", value_channels)):
            if width % num_heads:
                raise ValueError(f"{name} {width} must be divisible by num_heads {num_heads}")
        if value_channels >= out_channels:
            raise ValueError(f"value_channels {value_channels} must be below out_channels {out_channels}")
        self.num_heads = operator.index(num_heads)
        height, width = size
        self.size = (height, width)
        self.widths = (key_channels, key_channels, value_channels)
        head_width = key_channels // num_heads
        self.conv = nn.Conv2d(
            in_channels, out_channels - value_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.qkv = nn.Conv2d(in_channels, sum(self.widths), 1, bias=False)
        self.out = nn.Conv2d(value_channels, value_channels, 1, bias=False)
        self.rel_height = nn.Parameter(torch.empty(2 * height - 1, head_width))
        self.rel_width = nn.Parameter(torch.empty(2 * width - 1, head_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables, with a deviation of one over the root of their width."""
        for table in (self.rel_height, self.rel_width):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weight of each key for each query: (B, C, H, W) -> (B, heads, N, N)."""
        query, key, _ = self.heads(x)
        return (query @ key.mT).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), without the weights themselves: (B, C_in, H, W) -> (B, C_out, H, W)."""
        query, key, value = self.heads(x)
        missing = max(0, query.shape[-1] - value.shape[-1])
        wide = F.pad(value, (0, missing))  # the kernel wants equal widths
        y = F.scaled_dot_product_attention(query, key, wide, scale=1.0)[..., : value.shape[-1]]
        y = torch.unflatten(y.mT.flatten(1, 2), 2, self.size)  # (B, d_v, H, W)
        return torch.cat([self.conv(x), self.out(y)], dim=1)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys whose scalar product is the sum of the three logits, and values.

        The logit of query i for key j is q_i . k_j + a_i[x_j] + b_i[y_j], where a_i has a number for each
        column and b_i one for each row. Both are put behind q_i; behind k_j ones mark column x_j and row y_j.

        Shape: (B, C, H, W) -> (B, heads, N, d_k / heads + W + H) twice, (B, heads, N, d_v / heads)
        """
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) with (H, W) = {self.size}")
        q, k, v = (
            part.unflatten(1, (self.num_heads, -1)).flatten(3).mT  # (B, heads, N, width)
            for part in self.qkv(x).split(self.widths, dim=1)
        )
        q = q * q.shape[-1] ** -0.5
        grid = q.unflatten(2, self.size)  # (B, heads, H, W, d_k / heads)
        columns = absolute_from_relative(grid @ self.rel_width.mT)  # (B, heads, H, W, W)
        rows = absolute_from_relative(grid.transpose(2, 3) @ self.rel_height.mT)  # (B, heads, W, H, H)
        query = torch.cat([q, columns.flatten(2, 3), rows.transpose(2, 3).flatten(2, 3)], dim=-1)
        height, width = self.size
        column_of = torch.eye(width, dtype=x.dtype, device=x.device).repeat(height, 1)  # (N, W)
        row_of = torch.eye(height, dtype=x.dtype, device=x.device).repeat_interleave(width, 0)  # (N, H)
        marks = torch.cat([column_of, row_of], dim=-1).expand(*k.shape[:2], -1, -1)
        return query, torch.cat([k, marks], dim=-1), v


def absolute_from_relative(logits: Tensor) -> Tensor:
    """Turn logits by offset into logits by position: (..., L, 2 L - 1) -> (..., L, L).

    Entry (i, j) of the result is entry (i, j - i + L - 1). Nothing is looked up: a column is added, and when
    rows of 2 L are read as rows of 2 L - 1, each begins one place further left than the row before.
    """
    length = logits.shape[-2]
    flat = F.pad(logits, (0, 1)).flatten(-2)  # (..., 2 L^2)
    flat = F.pad(flat, (0, length - 1))  # (..., (L + 1) (2 L - 1))
    flat = torch.unflatten(flat, -1, (length + 1, 2 * length - 1))
    return flat[..., :length, length - 1 :]


def example(
    B: int = 2, C: int = 64, k: int = 3, r: int = 4, heads: int = 8, H: int = 14, W: int = 11
) -> tuple[AugmentedConv2d, tuple[Tensor]]:
    """Return a seeded layer from C to C channels, d_v = C / r and d_k = 2 C / r, and a (B, C, H, W) map."""
    torch.manual_seed(0)
    layer = AugmentedConv2d(C, C, k, 2 * C // r, C // r, heads, (H, W)).eval()
    return layer, (torch.randn(B, C, H, W),)


def variants(**sizes: int) -> dict[str, tuple[AugmentedConv2d, tuple[Tensor]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    _, (x,) = example(**sizes)
    C, size = x.shape[1], (x.shape[2], x.shape[3])
    wide = AugmentedConv2d(C, 4 * C, 1, key_channels=2, value_channels=2 * C, num_heads=1, size=size)
    return {"wide_values": (wide.eval(), (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    weights = layer.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}, weights {tuple(weights.shape)}")
    print("offsets of 4 positions from each other, by padding and reshaping:")
    print(absolute_from_relative(torch.arange(-3, 4).expand(4, 7)))
