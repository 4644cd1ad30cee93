"""Masks: which key a query may see, in one convention, with converters to and from the usual others.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762 (scores that are
not allowed become minus infinity before the softmax; section 3.2.3).
Code: torch 2.13.0, `F.scaled_dot_product_attention` and `nn.MultiheadAttention`; transformers 5.23.0, Llama.
Differs: the mask is boolean, True = may be attended, as in `F.scaled_dot_product_attention`. It has four
dimensions and broadcasts to (B, heads, T, S); with two, (T, S) and a padding mask (B, S) could be mistaken
for each other. Masks are joined by `&`. A query that may attend to nothing reads zeros; the paper's minus
infinity would give NaN.
SPDX-License-Identifier: MIT
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Return (1, 1, T, S): no query sees a later key. The ends are aligned: the last query sees all S keys.

    >>> causal(2, 4)[0, 0].int()
    tensor([[1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    return torch.ones(1, 1, T, S, dtype=torch.bool, device=device).tril(S - T)


def padding(lengths: Tensor, S: int) -> Tensor:
    """Return (B, 1, 1, S): True at the first `lengths[b]` of S keys. Padding on the left: `.flip(-1)`.

    Looks at the values, so call it outside compiled code.

    Raises:
        TypeError: `lengths` are not integer.
        ValueError: `lengths` are not (B,), or one is below 0 or above S.

    >>> padding(torch.tensor([3, 1]), 4).squeeze().int()
    tensor([[1, 1, 1, 0],
            [1, 0, 0, 0]], dtype=torch.int32)
    """
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be integer, not {lengths.dtype}")
    if lengths.dim() != 1:
        raise ValueError(f"lengths {tuple(lengths.shape)} must be (B,)")
    if not ((lengths >= 0) & (lengths <= S)).all():
        raise ValueError(f"lengths {lengths.min()} to {lengths.max()} must be in [0, {S}]")
    real = torch.arange(S, device=lengths.device) < lengths[:, None]  # (B, S)
    return real[:, None, None]  # (B, 1, 1, S)


def to_additive(mask: Tensor, dtype: torch.dtype, hidden: float = -math.inf) -> Tensor:
    """Return a float mask that is added to the scores: 0 where True, `hidden` where False.

    Hugging Face fills its four-dimensional mask with `torch.finfo(dtype).min` instead of -inf.

    Raises:
        TypeError: `dtype` is not float.
        ValueError: `hidden` is above -100, too little to hide anything, or NaN.
    """
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be floating-point, not {dtype}")
    if not hidden <= -100:
        raise ValueError(f"hidden {hidden} must be at most -100")
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~_bool(mask), hidden)


def from_additive(added: Tensor) -> Tensor:
    """Return the mask of a float mask: True at 0, False at -100 or less (-1e4, -1e9, the minimum, -inf).

    Looks at the values, so call it outside compiled code.

    Raises:
        TypeError: the mask is not float.
        ValueError: some value is neither, as in a bias, or in a mask of ones and zeros.

    >>> from_additive(torch.tensor([0.0, -1e9, -math.inf]))
    tensor([ True, False, False])
    """
    if not added.is_floating_point():
        raise TypeError(f"added must be floating-point, not {added.dtype}")
    mask = added == 0
    if not (mask | (added <= -100)).all():
        raise ValueError("added must hold only 0 = may be attended and -100 or less = hidden")
    return mask


def to_mha(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return `attn_mask` of `nn.MultiheadAttention`, True = hidden: (B * heads, T, S).

    `shape` is (B, heads, T, S), all of it, because that module does not broadcast.
    """
    _check(mask, shape)
    return ~mask.expand(shape).flatten(0, 1)


def from_mha(attn_mask: Tensor, num_heads: int) -> Tensor:
    """Return the mask of a boolean `attn_mask`, (T, S) or (B * heads, T, S): (1 or B, 1 or heads, T, S).

    Raises:
        TypeError: `attn_mask` is not bool.
        ValueError: it has neither of the two shapes.
    """
    allowed = ~_bool(attn_mask, "attn_mask", "hidden")
    if allowed.dim() == 2:
        return allowed[None, None]
    if allowed.dim() != 3 or allowed.shape[0] % num_heads:
        raise ValueError(
            f"attn_mask {tuple(attn_mask.shape)} must be (T, S) or (B * heads, T, S) with heads = {num_heads}"
        )
    return allowed.view(len(allowed) // num_heads, num_heads, *allowed.shape[1:])


def to_mha_padding(mask: Tensor) -> Tensor:
    """Return `key_padding_mask` of `nn.MultiheadAttention`, True = hidden: (B, 1, 1, S) -> (B, S)."""
    return ~_of_keys(mask)


def from_mha_padding(key_padding_mask: Tensor) -> Tensor:
    """Return the mask of a boolean `key_padding_mask`: (B, S) -> (B, 1, 1, S)."""
    if key_padding_mask.dim() != 2:
        raise ValueError(f"key_padding_mask {tuple(key_padding_mask.shape)} must be (B, S)")
    return ~_bool(key_padding_mask, "key_padding_mask", "hidden")[:, None, None]


def to_huggingface(mask: Tensor) -> Tensor:
    """Return `attention_mask` of a tokenizer, 1 = token, 0 = padding: (B, 1, 1, S) -> (B, S), integers."""
    return _of_keys(mask).long()


def from_huggingface(attention_mask: Tensor) -> Tensor:
    """Return the mask of a tokenizer's ones and zeros: (B, S) -> (B, 1, 1, S).

    Looks at the values, so call it outside compiled code.

    Raises:
        TypeError: it is float, as an additive mask, in which 0 means the opposite.
        ValueError: it is not (B, S), or holds anything but ones and zeros.
    """
    if attention_mask.is_floating_point():
        raise TypeError(f"attention_mask must be integer, not {attention_mask.dtype}; see from_additive")
    if attention_mask.dim() != 2:
        raise ValueError(f"attention_mask {tuple(attention_mask.shape)} must be (B, S)")
    ones = attention_mask == 1
    if not (ones | (attention_mask == 0)).all():
        raise ValueError("attention_mask must hold only 1 = may be attended and 0 = hidden")
    return ones[:, None, None]


class MaskedAttention(nn.Module):
    """Scaled dot-product attention under a mask.

    g(x) = softmax(Q K^T / sqrt(d)) over the keys that the mask allows; f(g, x) = g V.

    Shape:
        - query: (B, heads, T, d)
        - key: (B, heads, S, d)
        - value: (B, heads, S, d_v)
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, S)
        - attention(...): (B, heads, T, S); rows sum to one, or to zero where nothing is allowed
        - forward(...): (B, heads, T, d_v)

    What is not finite reaches the output even behind a mask, because 0 times NaN is NaN; fill padding first.
    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        TypeError: `mask` is not bool.
        ValueError: query, key, value or mask do not fit each other.

    A mask and its inverse share out the keys, so the inverse shows all that was to be hidden:

    >>> attend, (query, key, value, mask) = example()
    >>> weights = attend.attention(query, key, value, ~mask)
    >>> print(f"{(weights * ~mask).sum() / weights.sum():.0%} of the weight is on hidden keys")
    100% of the weight is on hidden keys

    A query that may attend to nothing reads zeros:

    >>> attend(query, key, value, torch.zeros_like(mask)).abs().max().item()
    0.0
    """

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x), the weights: (B, heads, T, S). `value` is not used."""
        shape = _shape(query, key)
        scores = query / math.sqrt(key.shape[-1]) @ key.mT  # (B, heads, T, S)
        if mask is None:
            return scores.softmax(dim=-1)
        _check(mask, shape)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x) by the fused kernel, which has the same convention: (B, heads, T, d_v)."""
        shape = _shape(query, key)
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, heads, S, d_v) with B and S of key "
                f"{tuple(key.shape)}"
            )
        if mask is not None:
            _check(mask, shape)
        return F.scaled_dot_product_attention(query, key, value, mask)


def _bool(mask: Tensor, name: str = "mask", true: str = "may be attended") -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, True = {true}, not {mask.dtype}")
    return mask


def _of_keys(mask: Tensor) -> Tensor:
    """Return the keys that all queries of a sample may see: (B, 1, 1, S) -> (B, S)."""
    if mask.dim() != 4 or mask.shape[1:3] != (1, 1):
        raise ValueError(f"mask {tuple(mask.shape)} must be (B, 1, 1, S) with the same keys for all queries")
    return _bool(mask)[:, 0, 0]


def _shape(query: Tensor, key: Tensor) -> tuple[int, ...]:
    """Return (B, heads, T, S)."""
    if query.dim() != 4 or key.dim() != 4 or query.shape[:2] != key.shape[:2]:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, heads, T, d) and "
            "(B, heads, S, d) with the same B and heads"
        )
    return (*query.shape[:3], key.shape[2])


def _check(mask: Tensor, shape: tuple[int, ...]) -> None:
    if _bool(mask).dim() != 4 or any(n not in (1, full) for n, full in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"mask {tuple(mask.shape)} must have four dimensions that broadcast to (B, heads, T, S) = "
            f"{shape}; (T, S) is passed as mask[None, None], padding (B, S) as padding[:, None, None]"
        )


def example(
    B: int = 2, heads: int = 3, T: int = 4, S: int = 6, d: int = 8, d_v: int = 5
) -> tuple[MaskedAttention, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return attention, seeded queries, keys and values, and a mask that is causal and hides padding."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, *shape) for shape in ((T, d), (S, d), (S, d_v)))
    lengths = (S - torch.arange(B)).clamp(min=1)  # S, S - 1, ...
    return MaskedAttention().eval(), (query, key, value, causal(T, S) & padding(lengths, S))


def variants(**sizes: int) -> dict[str, tuple[MaskedAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attend, (query, key, value, mask) = example(**sizes)
    of_heads = mask & (torch.rand(*query.shape[:3], key.shape[2]) > 0.3)  # (B, heads, T, S)
    of_heads[:, :, 0] = False
    return {
        "no_mask": (attend, (query, key, value)),
        "mask_of_each_head": (attend, (query, key, value, of_heads)),
    }


if __name__ == "__main__":
    attend, (query, key, value, mask) = example()
    print("mask of the second sample, # = may be attended")
    for row in mask[1, 0].tolist():
        print("  " + "".join("#" if allowed else "." for allowed in row))
    for name, used in (("mask", mask), ("~mask", ~mask)):
        weights = attend.attention(query, key, value, used)
        print(f"{name}: {(weights * ~mask).sum() / weights.sum():.0%} of the weight is on hidden keys")
