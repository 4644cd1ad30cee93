"""Parts of decoders beside the form in which most public code has them, written out."""

import torch
from torch import Tensor, nn

from benchmarks.pair import Pair
from snippets.foundations.rotary import angles, rotate

TOKENS, HEADS, WIDTH = 2048, 16, 128


class Rotation(nn.Module):
    """Turns heads of queries and of keys, of one layout, by their positions."""

    def forward(self, heads: Tensor) -> Tensor:
        angle = angles(torch.arange(heads.shape[2]), WIDTH)
        return rotate(heads, angle.cos(), angle.sin())


def rotary() -> Pair:
    """The usual form multiplies all features twice, by cosines and sines of twice the width."""
    frequencies = 10_000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)

    def run(heads: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(heads.shape[2]), frequencies)
        angle = torch.cat([angle, angle], dim=-1)  # (T, d)
        a, b = heads.chunk(2, dim=-1)
        return heads * angle.cos() + torch.cat([-b, a], dim=-1) * angle.sin()

    heads = torch.randn(1, TOKENS, 2 * HEADS, WIDTH).transpose(1, 2)  # (B, heads, T, d), as projected
    return Pair("x * cos + rotate_half(x) * sin", Rotation(), run, (heads,))
