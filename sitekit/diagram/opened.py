"""The fused kernel of torch, written out, so that its steps can be shown: scores, mask, softmax, sum."""

import math

import torch
from torch import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what the kernel of this name returns, dropout aside."""
    if enable_gqa:
        key, value = (shared(heads, query.shape[-3]) for heads in (key, value))
    scores = query @ key.mT
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scaled = scores if factor == 1 else scores * factor
    if attn_mask is not None and attn_mask.is_floating_point():
        biased = scaled + attn_mask
        weights = biased.softmax(dim=-1)
        return summed(weights, value)
    if is_causal:
        attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
    masked = scaled if attn_mask is None else scaled.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    weights = masked.softmax(dim=-1)
    weights = weights if attn_mask is None else weights.masked_fill(~attn_mask, 0.0)
    return summed(weights, value)


def summed(weights: Tensor, value: Tensor) -> Tensor:
    """Return the values, weighted and summed."""
    return weights @ value


def shared(kept: Tensor, heads: int) -> Tensor:
    """Return keys or values once for each query head that reads them."""
    return kept.repeat_interleave(heads // kept.shape[-3], dim=-3)
