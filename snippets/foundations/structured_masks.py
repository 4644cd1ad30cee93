"""Masks that structure: documents, prefix, chunks, blocks, block diffusion and trees in one sequence.

Paper: Colin Raffel, Noam Shazeer, Adam Roberts, Katherine Lee, Sharan Narang, Michael Matena, Yanqi Zhou,
Wei Li, Peter J. Liu, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
JMLR 2020, arXiv 1910.10683 (prefix). Marianne Arriola et al., "Block Diffusion: Interpolating Between
Autoregressive and Diffusion Language Models", ICLR 2025, arXiv 2503.09573. Xupeng Miao et al., "SpecInfer:
Accelerating Large Language Model Serving with Tree-based Speculative Inference and Verification",
ASPLOS 2024, arXiv 2305.09781.
Code: huggingface/transformers 5.23.0, masking_utils.py; kuleshov-group/bd3lms 1c3e8f4, models/dit.py;
meta-pytorch/attention-gym 7fdb85d, attn_gym/masks; FasterDecoding/Medusa e2a5d20, medusa/model/utils.py.
Differs: each function returns a tensor where the released code has a rule for two indices or fills a matrix.
A negative number of a document marks what belongs to none, such as padding.
SPDX-License-Identifier: MIT
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal(T: int, device: torch.device | None = None) -> Tensor:
    """Return (1, 1, T, T): each token sees itself and those before it."""
    return torch.ones(1, 1, T, T, dtype=torch.bool, device=device).tril()


def documents(ids: Tensor) -> Tensor:
    """Return (B, 1, T, T): tokens with the same number (B, T) see each other; those below 0 nothing.

    Joined with a causal mask by `&`, a pack of texts. With `|`, pictures in a text: below 0 is the text.

    Raises:
        TypeError: `ids` are not integer.
        ValueError: `ids` are not (B, T).

    >>> (causal(5) & documents(torch.tensor([[0, 0, 1, 1, 1]])))[0, 0].int()
    tensor([[1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 1, 1, 1]], dtype=torch.int32)
    """
    _check_integers(ids, "ids")
    if ids.dim() != 2:
        raise ValueError(f"ids {tuple(ids.shape)} must be (B, T)")
    query, key = ids[:, :, None], ids[:, None]  # (B, T, 1) and (B, 1, T)
    return ((query == key) & (query >= 0))[:, None]


def prefix(lengths: Tensor, T: int) -> Tensor:
    """Return (B, 1, T, T): the first `lengths[b]` tokens are seen by all, the others causally.

    Looks at the values, so call it outside compiled code.

    Raises:
        TypeError: `lengths` are not integer.
        ValueError: `lengths` are not (B,), or one is below 0 or above T.

    >>> prefix(torch.tensor([2]), 4)[0, 0].int()
    tensor([[1, 1, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    _check_integers(lengths, "lengths")
    if lengths.dim() != 1:
        raise ValueError(f"lengths {tuple(lengths.shape)} must be (B,)")
    if not ((lengths >= 0) & (lengths <= T)).all():
        raise ValueError(f"lengths {lengths.min()} to {lengths.max()} must be in [0, {T}]")
    key = torch.arange(T, device=lengths.device)
    return (key < lengths[:, None])[:, None, None] | causal(T, lengths.device)


def chunks(T: int, size: int, device: torch.device | None = None) -> Tensor:
    """Return (1, 1, T, T): tokens of one chunk of `size` see each other; joined with a causal mask by `&`."""
    chunk = _parts(T, size, device)
    return (chunk[:, None] == chunk)[None, None]


def blocks(T: int, size: int, device: torch.device | None = None) -> Tensor:
    """Return (1, 1, T, T): each token sees the whole of its own block of `size`, and all blocks before it."""
    block = _parts(T, size, device)
    return (block[:, None] >= block)[None, None]


def block_diffusion(T: int, size: int, device: torch.device | None = None) -> Tensor:
    """Return (1, 1, 2 T, 2 T), to train a model that writes blocks: T noisy tokens, then the T clean ones.

    A noisy token sees its own noisy block and the clean blocks before it. The clean tokens see `blocks`.

    >>> block_diffusion(4, 2)[0, 0, :4].int()
    tensor([[1, 1, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 1, 0, 0],
            [0, 0, 1, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    own, clean = chunks(T, size, device), blocks(T, size, device)
    noisy_rows = torch.cat([own, clean & ~own], dim=3)  # (1, 1, T, 2 T)
    clean_rows = torch.cat([torch.zeros_like(own), clean], dim=3)
    return torch.cat([noisy_rows, clean_rows], dim=2)


def tree(parents: Tensor) -> Tensor:
    """Return (B, 1, T, T): each token sees itself and its ancestors; `parents` (B, T), -1 at a root.

    Looks at the values, so call it outside compiled code.

    Raises:
        TypeError: `parents` are not integer.
        ValueError: `parents` are not (B, T), or a parent does not come before its child.

    Two continuations of token 0, the first of which forks again:

    >>> tree(torch.tensor([[-1, 0, 0, 1, 1]]))[0, 0].int()
    tensor([[1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 0, 1, 0, 0],
            [1, 1, 0, 1, 0],
            [1, 1, 0, 0, 1]], dtype=torch.int32)
    """
    _check_integers(parents, "parents")
    if parents.dim() != 2:
        raise ValueError(f"parents {tuple(parents.shape)} must be (B, T)")
    token = torch.arange(parents.shape[1], device=parents.device)
    if not ((parents >= -1) & (parents < token)).all():
        raise ValueError("parents must hold for each token an earlier one, or -1 for a root")
    seen = (token[:, None] == token).expand(len(parents), -1, -1)  # (B, T, T)
    above = parents  # then grandparents, and so on; -1 beyond the root
    while (above >= 0).any():
        seen = seen | (above[:, :, None] == token)
        above = parents.gather(1, above.clamp(min=0)).where(above >= 0, -1)
    return seen[:, None]


class PatternAttention(nn.Module):
    """Scaled dot-product attention of a sequence under one of these masks.

    g(x) = softmax(Q K^T / sqrt(d)) over the keys that the mask allows; f(g, x) = g V.

    Shape:
        - query, key: (B, heads, T, d)
        - value: (B, heads, T, d_v)
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, T)
        - attention(...): (B, heads, T, T); rows sum to one, or to zero where nothing is allowed
        - forward(...): (B, heads, T, d_v)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        TypeError: `mask` is not bool.
        ValueError: query, key, value or mask do not fit each other.

    A pack of documents is read as if each stood alone:

    >>> attend, (query, key, value, mask) = example()
    >>> packed = attend(query, key, value, mask)
    >>> own = slice(3, 7)  # of the second document
    >>> alone = attend(query[:, :, own], key[:, :, own], value[:, :, own], causal(4))
    >>> torch.allclose(packed[:, :, own], alone, atol=1e-6)
    True
    """

    def attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return g(x), the weights: (B, heads, T, T). `value` is not used."""
        _check(query, key, value, mask)
        scores = query / math.sqrt(key.shape[-1]) @ key.mT  # (B, heads, T, T)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return f(g(x), x) by the fused kernel: (B, heads, T, d_v)."""
        _check(query, key, value, mask)
        return F.scaled_dot_product_attention(query, key, value, mask)


def _parts(T: int, size: int, device: torch.device | None) -> Tensor:
    """Return the number of the part in which each token stands: (T,)."""
    if size < 1:
        raise ValueError(f"size {size} must be at least 1")
    return torch.arange(T, device=device) // size


def _check_integers(numbers: Tensor, name: str) -> None:
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise TypeError(f"{name} must be integer, not {numbers.dtype}")


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> None:
    if query.dim() != 4 or key.shape != query.shape or value.shape[:-1] != query.shape[:-1]:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} and value {tuple(value.shape)} must be "
            "(B, heads, T, d), (B, heads, T, d) and (B, heads, T, d_v)"
        )
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    shape = (*query.shape[:3], query.shape[2])
    if mask.dim() != 4 or any(n not in (1, full) for n, full in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"mask {tuple(mask.shape)} must have four dimensions that broadcast to (B, heads, T, T) = "
            f"{shape}; (T, T) is passed as mask[None, None]"
        )


def example(
    B: int = 2, heads: int = 3, T: int = 10, d: int = 8, d_v: int = 5
) -> tuple[PatternAttention, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return attention, seeded queries, keys and values, and the causal mask of a pack of three documents."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, T, width) for width in (d, d, d_v))
    ids = (torch.arange(T) >= 3).long() + (torch.arange(T) >= 7).long()  # borders at 3 and 7
    return PatternAttention().eval(), (query, key, value, causal(T) & documents(ids.expand(B, T)))


def variants(**sizes: int) -> dict[str, tuple[PatternAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attend, (*inputs, _) = example(**sizes)
    B, _, T, _ = inputs[0].shape
    token = torch.arange(T)
    masks = {
        "padding": documents((token * 3 // T - 1).expand(B, T)),
        "prefix": prefix((T - torch.arange(B)).clamp(min=0), T),
        "chunks": causal(T) & chunks(T, 4),
        "tree": tree(((token - 1) // 2).expand(B, T)),
    }
    cases = {name: (*inputs, mask.expand(B, 1, T, T)) for name, mask in masks.items()}
    twice = (x.repeat(1, 1, 2, 1) for x in inputs)
    cases["block_diffusion"] = (*twice, block_diffusion(T, 2).expand(B, 1, 2 * T, 2 * T))
    return {name: (attend, case) for name, case in cases.items()}


if __name__ == "__main__":
    patterns = {
        "documents": causal(8) & documents(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]])),
        "prefix": prefix(torch.tensor([3]), 8),
        "chunks": causal(8) & chunks(8, 3),
        "block diffusion": block_diffusion(4, 2),
        "tree": tree(torch.tensor([[-1, 0, 0, 1, 1, 2, 3, 3]])),
    }
    for name, mask in patterns.items():
        print(f"{name}, {mask.sum()} of {mask.numel()} pairs, # = may be attended")
        for row in mask[0, 0].tolist():
            print("  " + "".join("#" if allowed else "." for allowed in row))
