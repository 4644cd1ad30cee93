"""Masks: which key a query may see, in one convention, with converters to and from the usual others.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762 (scores that are
not allowed become minus infinity before the softmax).
Differs: the mask is boolean, True = may be attended, as in `F.scaled_dot_product_attention`. It has two
dimensions (T, S) or four, and broadcasts to (B, heads, T, S). Masks are joined by `&`. A query that may
attend to nothing reads zeros; the paper's minus infinity would give NaN.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Return (T, S): no query sees a later key. The ends are aligned: the last query sees all S keys.

    >>> causal(2, 4).int()
    tensor([[1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def padding(lengths: Tensor, S: int) -> Tensor:
    """Return (B, 1, 1, S): True at the first `lengths[b]` of S keys. Padding on the left: `.flip(-1)`.

    >>> padding(torch.tensor([3, 1]), 4).squeeze().int()
    tensor([[1, 1, 1, 0],
            [1, 0, 0, 0]], dtype=torch.int32)
    """
    real = torch.arange(S, device=lengths.device) < lengths[:, None]  # (B, S)
    return real[:, None, None]  # (B, 1, 1, S)


def to_additive(mask: Tensor, dtype: torch.dtype, hidden: float = -math.inf) -> Tensor:
    """Return a float mask that is added to the scores: 0 where True, `hidden` where False.

    Hugging Face fills its four-dimensional mask with `torch.finfo(dtype).min` instead of -inf.
    """
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~_bool(mask), hidden)


def from_additive(added: Tensor) -> Tensor:
    """Return the mask of a float mask: True at 0, False at -100 or less (-1e4, -1e9, the minimum, -inf).

    Looks at the values, so call it outside compiled code.

    Raises:
        ValueError: some value is neither, as in a bias, or in a mask of ones and zeros.

    >>> from_additive(torch.tensor([0.0, -1e9, -math.inf]))
    tensor([ True, False, False])
    """
    mask = added == 0
    if not (mask | (added <= -100)).all():
        raise ValueError("an additive mask holds 0 = may be attended and at most -100 = hidden, nothing else")
    return mask


def to_mha(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return `attn_mask` of `nn.MultiheadAttention`, True = hidden: (B * heads, T, S).

    `shape` is (B, heads, T, S), all of it, because that module does not broadcast.
    """
    return ~_bool(mask).expand(shape).flatten(0, 1)


def from_mha(attn_mask: Tensor, heads: int) -> Tensor:
    """Return the mask of a boolean `attn_mask`: (T, S) or (B * heads, T, S) -> (T, S) or (B, heads, T, S)."""
    allowed = ~_bool(attn_mask)
    return allowed if allowed.dim() == 2 else allowed.view(-1, heads, *allowed.shape[1:])


def to_mha_padding(mask: Tensor) -> Tensor:
    """Return `key_padding_mask` of `nn.MultiheadAttention`, True = hidden: (B, 1, 1, S) -> (B, S)."""
    return ~_of_keys(mask)


def from_mha_padding(key_padding_mask: Tensor) -> Tensor:
    """Return the mask of a boolean `key_padding_mask`: (B, S) -> (B, 1, 1, S)."""
    return ~_bool(key_padding_mask)[:, None, None]


def to_huggingface(mask: Tensor) -> Tensor:
    """Return `attention_mask` of a tokenizer, 1 = token, 0 = padding: (B, 1, 1, S) -> (B, S), integers."""
    return _of_keys(mask).long()


def from_huggingface(attention_mask: Tensor) -> Tensor:
    """Return the mask of ones and zeros: (B, S) -> (B, 1, 1, S)."""
    return (attention_mask != 0)[:, None, None]


class MaskedAttention(nn.Module):
    """Scaled dot-product attention under a mask.

    g(x) = softmax(Q K^T / sqrt(d)) over the keys that the mask allows; f(g, x) = g V.

    Shape:
        - query: (B, heads, T, d)
        - key, value: (B, heads, S, d)
        - mask: bool, True = may be attended; (T, S), or four dimensions that broadcast to (B, heads, T, S)
        - attention(...): (B, heads, T, S); rows sum to one, or to zero where nothing is allowed
        - forward(...): (B, heads, T, d)

    Raises:
        TypeError: `mask` is not bool.
        ValueError: `mask` does not fit.

    A mask and its inverse share out the keys, so the inverse shows all that was to be hidden:

    >>> attend, (query, key, value, mask) = example()
    >>> weights = attend.attention(query, key, value, ~mask)
    >>> print(f"{(weights * ~mask).sum() / weights.sum():.0%} of the weight is on hidden keys")
    100% of the weight is on hidden keys

    A query that may attend to nothing reads zeros:

    >>> attend(query, key, value, torch.zeros(4, 6, dtype=torch.bool)).abs().max().item()
    0.0
    """

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x), the weights: (B, heads, T, S). `value` is not used."""
        scores = query @ key.mT / math.sqrt(key.shape[-1])  # (B, heads, T, S)
        if mask is None:
            return scores.softmax(dim=-1)
        _check(mask, query, key)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x) by the fused kernel, which has the same convention: (B, heads, T, d)."""
        if mask is not None:
            _check(mask, query, key)
        return F.scaled_dot_product_attention(query, key, value, mask)


def _bool(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, not {mask.dtype}")
    return mask


def _of_keys(mask: Tensor) -> Tensor:
    """Return the keys that all queries of a sample may see: (B, 1, 1, S) -> (B, S)."""
    if mask.dim() != 4 or mask.shape[1:3] != (1, 1):
        raise ValueError(f"mask {tuple(mask.shape)} is not (B, 1, 1, S), the same for all heads and queries")
    return _bool(mask)[:, 0, 0]


def _check(mask: Tensor, query: Tensor, key: Tensor) -> None:
    shape = (*query.shape[:3], key.shape[2])  # (B, heads, T, S)
    fits = all(n in (1, full) for n, full in zip(_bool(mask).shape[::-1], shape[::-1], strict=False))
    if mask.dim() not in (2, 4) or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have two dimensions (T, S) or four that broadcast to "
            f"(B, heads, T, S) = {shape}"
        )


def example(
    B: int = 2, heads: int = 3, T: int = 4, S: int = 6, d: int = 8
) -> tuple[MaskedAttention, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return attention, seeded queries, keys and values, and a mask that is causal and hides padding."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, n, d) for n in (T, S, S))
    lengths = (S - torch.arange(B)).clamp(min=1)  # S, S - 1, ...
    return MaskedAttention().eval(), (query, key, value, causal(T, S) & padding(lengths, S))


if __name__ == "__main__":
    attend, (query, key, value, mask) = example()
    print("mask of the second sample, # = may be attended")
    for row in mask[1, 0].tolist():
        print("  " + "".join("#" if allowed else "." for allowed in row))
    for name, used in (("mask", mask), ("~mask", ~mask)):
        weights = attend.attention(query, key, value, used)
        print(f"{name}: {(weights * ~mask).sum() / weights.sum():.0%} of the weight is on hidden keys")
