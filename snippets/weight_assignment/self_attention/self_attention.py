"""Self-attention: every token asks all tokens of its own sequence and reads the mean of their answers.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762
(equation 1 for one head of section 3.2; positions of section 3.5).
Earlier, as intra-attention in a recurrent network: Jianpeng Cheng, Li Dong, Mirella Lapata, "Long Short-Term
Memory-Networks for Machine Reading", EMNLP 2016, arXiv 1601.06733.
Code: tensorflow/tensor2tensor bafdc1b, tensor2tensor/layers/common_attention.py (multihead_attention).
Differs: one head only, hence no output matrix; positions are a function of their own, to be added to the
input by whoever wants them, because attention works without. Start values are those of `nn.Linear`; Xavier's
in the released code.
SPDX-License-Identifier: MIT
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """One head of scaled dot-product self-attention.

    g(x) = softmax(Q K^T / sqrt(d)); f(g, x) = g V, with Q = x W_Q, K = x W_K, V = x W_V.

    Args:
        embed_dim: width E of the tokens.
        head_dim: width d of queries, keys, values and output; E if not given.

    Shape:
        - x: (B, T, E)
        - mask: bool, True = may be attended; three dimensions that broadcast to (B, T, T). A pattern (T, T)
          is passed as `pattern[None]`, padding (B, T), True at real tokens, as `padding[:, None]`
        - attention(x): (B, T, T), queries by keys; the weights of a query sum to one
        - forward(x): (B, T, d)

    A query that may attend to nothing gets zeros.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a width is below 1, `x` is not (B, T, E), or `mask` does not fit.
        TypeError: `mask` is not bool.

    Order means nothing to it: permuted tokens give permuted outputs.

    >>> layer, (x,) = example()
    >>> order = torch.randperm(x.shape[1])
    >>> torch.allclose(layer(x[:, order]), layer(x)[:, order], atol=1e-6)
    True

    With positions in the input that ends:

    >>> positions = sinusoidal_positions(8, 24)
    >>> torch.allclose(layer(x[:, order] + positions), layer(x + positions)[:, order], atol=0.1)
    False

    Queries of zeros have no preference, so every token reads the mean of all values:

    >>> _ = nn.init.zeros_(layer.q_proj.weight)
    >>> layer.attention(x)[0, 0].tolist() == [1 / 8] * 8
    True
    """

    def __init__(self, embed_dim: int, head_dim: int | None = None) -> None:
        super().__init__()
        head_dim = embed_dim if head_dim is None else head_dim
        if embed_dim < 1 or head_dim < 1:
            raise ValueError(f"embed_dim {embed_dim} and head_dim {head_dim} must be at least 1")
        self.q_proj = nn.Linear(embed_dim, head_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, head_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, head_dim, bias=False)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the weights: (B, T, E) -> (B, T, T)."""
        _check(mask, x)
        q, k = self.q_proj(x), self.k_proj(x)  # (B, T, d)
        scores: Tensor = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, T, T)
        if mask is None:
            return scores.softmax(dim=-1)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x) by the fused kernel, which never stores the weights: (B, T, E) -> (B, T, d)."""
        _check(mask, x)
        q, k, v = (project(x)[:, None] for project in (self.q_proj, self.k_proj, self.v_proj))  # (B, 1, T, d)
        allowed = None if mask is None else mask[:, None]  # (B, 1, T, T)
        return F.scaled_dot_product_attention(q, k, v, allowed).squeeze(1)  # (B, T, d)


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Return the codes of positions 0 to length - 1, to be added to tokens: (length, width).

    Code p holds sin(p / 10000^(2i / width)) at 2i and the cosine at 2i + 1.

    Raises:
        ValueError: `length` is below 1, or `width` is odd or below 2.

    Each pair is a clock hand that turns at its own speed, the last one slowest:

    >>> sinusoidal_positions(3, 4)
    tensor([[ 0.0000,  1.0000,  0.0000,  1.0000],
            [ 0.8415,  0.5403,  0.0100,  0.9999],
            [ 0.9093, -0.4161,  0.0200,  0.9998]])
    """
    if length < 1:
        raise ValueError(f"length {length} must be at least 1")
    if width < 2 or width % 2:
        raise ValueError(f"width {width} must be even and at least 2")
    # In float32 the angle of position 10,000 would be off by more than 1e-4.
    speed = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)  # (width / 2)
    angle = torch.arange(length)[:, None] * speed  # (length, width / 2)
    codes = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (length, width)
    return codes.to(torch.get_default_dtype())


def _check(mask: Tensor | None, x: Tensor) -> None:
    """Refuse tokens that are not (B, T, E), and a mask that is not bool or does not fit them."""
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    shape = (x.shape[0], x.shape[1], x.shape[1])
    fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], shape[::-1], strict=False))
    if mask.dim() != 3 or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, T) = {shape}; "
            "(T, T) is passed as mask[None], padding (B, T) as padding[:, None]"
        )


def example(B: int = 2, T: int = 8, E: int = 24, d: int = 16) -> tuple[SelfAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return SelfAttention(E, d).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    B, T, E = x.shape
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
    return {"causal": (layer, (x, causal)), "full_width": (SelfAttention(E).eval(), (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    print(
        f"input {tuple(x.shape)}, weights {tuple(layer.attention(x).shape)}, output {tuple(layer(x).shape)}"
    )
    for name, positions in (("without", 0.0), ("with", sinusoidal_positions(*x.shape[1:]))):
        forwards, backwards = (layer(tokens + positions).mean(dim=1) for tokens in (x, x.flip(1)))
        change = (forwards - backwards).abs().max()
        print(f"{name} positions: reversing the tokens changes the mean output by {change:.6f}")
