"""Multi-head self-attention: several attentions in parallel, each in its own E / heads features.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762 (section 3.2).
Code: tensorflow/tensor2tensor bafdc1b, tensor2tensor/layers/common_attention.py (multihead_attention).
Differs: the four projections have biases (as in `torch.nn.MultiheadAttention`; `bias=False` is the paper's
equation), and `dropout` acts on the weights, which the paper does not mention. Start values are those of
`nn.Linear`; Xavier's in the released code. Unlike torch's module: batch first, a True in a mask allows, and
weights come per head, not averaged.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Multi-head attention; self-attention as long as no `key` is given.

    g(x) = softmax(Q K^T / sqrt(d)) per head with d = E / heads; f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of queries, keys, values and output.
        num_heads: number of heads.
        dropout: probability with which a weight is dropped, in training only.
        bias: whether the four projections have biases. That of the keys is idle: it adds the same number
            to all scores of a query.

    Shape:
        - query: (B, T, E)
        - key, value: (B, S, E); `key` defaults to the query, `value` to the key
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, S). A pattern
          (T, S) is passed as `pattern[None, None]`, padding (B, S), True at real tokens, as
          `padding[:, None, None]`
        - attention(...): (B, heads, T, S); the weights of a query sum to one
        - forward(...): (B, T, E)

    `is_causal` hides later keys. With T != S the ends are aligned: the last query sees all keys (torch's
    flag of that name aligns the beginnings, which is wrong for decoding with cached keys).
    A query that may attend to nothing gets zeros from its heads, hence the bias of `out_proj`.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `dropout` is not in [0, 1),
            or the shapes of `query`, `key`, `value` and `mask` do not fit.
        TypeError: `mask` is not bool.

    Order means nothing to it: permuted tokens give permuted outputs.

    >>> layer, (x,) = example()
    >>> order = torch.randperm(x.shape[1])
    >>> torch.allclose(layer(x[:, order]), layer(x)[:, order], atol=1e-6)
    True

    Splitting into heads costs nothing: 4 E^2 + 4 E parameters whatever their number.

    >>> [sum(p.numel() for p in MultiHeadAttention(512, heads).parameters()) for heads in (1, 8)]
    [1050624, 1050624]

    The first token of a causal layer can attend only to itself:

    >>> layer.attention(x, is_causal=True)[0, :, 0, :3].tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout} must be in [0, 1)")
        self.num_heads = operator.index(num_heads)
        self.dropout = dropout
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    def attention(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return g(x), the weights of each head before dropout: (B, heads, T, S). `value` is not used."""
        key = query if key is None else key
        _check(query, key)
        q = self._split(self.q_proj(query))  # (B, heads, T, d)
        k = self._split(self.k_proj(key))  # (B, heads, S, d)
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, heads, T, S)
        allowed = _allowed(q, k, mask, is_causal)
        if allowed is None:
            return scores.softmax(dim=-1)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~allowed, 0.0)  # the last step empties rows without a key

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return f(g(x), x) by the fused kernel, which never stores the weights: (B, T, E)."""
        key = query if key is None else key
        value = key if value is None else value
        _check(query, key)
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, S, E) with B and S of key {tuple(key.shape)}"
            )
        q = self._split(self.q_proj(query))  # (B, heads, T, d)
        k = self._split(self.k_proj(key))  # (B, heads, S, d)
        v = self._split(self.v_proj(value))  # (B, heads, S, d)
        dropout = self.dropout if self.training else 0.0
        triangle = is_causal and mask is None and q.shape == k.shape  # the one mask the kernel makes itself
        allowed = None if triangle else _allowed(q, k, mask, is_causal)
        heads = F.scaled_dot_product_attention(q, k, v, allowed, dropout, is_causal=triangle)
        merged = heads.transpose(1, 2).flatten(2)  # (B, T, E)
        output: Tensor = self.out_proj(merged)
        return output

    def _split(self, x: Tensor) -> Tensor:
        B, N, E = x.shape
        return x.reshape(B, N, self.num_heads, E // self.num_heads).transpose(1, 2)  # (B, heads, N, d)


def _check(query: Tensor, key: Tensor) -> None:
    """Refuse what would broadcast."""
    if query.dim() != 3 or key.dim() != 3 or query.shape[0] != key.shape[0]:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, T, E) and (B, S, E) with the "
            "same B"
        )


def _allowed(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Check the mask and join it with the causal one; None if everything may be attended."""
    shape = (*q.shape[:3], k.shape[2])  # (B, heads, T, S)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], shape[::-1], strict=False))
        if mask.dim() != 4 or not fits:
            raise ValueError(
                f"mask {tuple(mask.shape)} must have four dimensions that broadcast to (B, heads, T, S) = "
                f"{shape}; (T, S) is passed as mask[None, None], padding (B, S) as padding[:, None, None]"
            )
    if not is_causal:
        return mask
    T, S = shape[2:]
    causal = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return causal if mask is None else mask & causal


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[MultiHeadAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return MultiHeadAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    (B, T, E), heads = x.shape, layer.num_heads
    key, value, mask = torch.randn(B, 7, E), torch.randn(B, 7, E), torch.rand(B, 1, T, 7) > 0.3
    return {
        "cross": (layer, (x, key)),
        "masked_values": (layer, (x, key, value, mask)),
        "without_bias": (MultiHeadAttention(E, heads, bias=False).eval(), (x,)),
        "dropout": (MultiHeadAttention(E, heads, dropout=0.1).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    weights = layer.attention(x)
    print(f"input {tuple(x.shape)}, output {tuple(layer(x).shape)}, weights {tuple(weights.shape)}")
    for head, row in enumerate(weights[0, :, 0]):
        print(f"head {head}: token 0 attends most to token {row.argmax()} (weight {row.max():.3f})")
