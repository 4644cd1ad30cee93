"""Online softmax, the algorithm of FlashAttention: exact attention tile by tile, without a T x S matrix.

Paper: Tri Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", ICLR 2024,
arXiv 2307.08691 (algorithms 1 and 2); after Tri Dao, Daniel Y. Fu, Stefano Ermon, Atri Rudra, Christopher Ré,
NeurIPS 2022, arXiv 2205.14135, and Maxim Milakov, Natalia Gimelshein, arXiv 1805.02867.
Code: torch 2.13.0, `torch.ops.aten._scaled_dot_product_flash_attention_for_cpu`.
Differs: torch operations instead of a kernel, so it saves the memory and not the traffic. Scores are scaled,
masks are boolean, and a query without keys reads zeros; the paper has the causal mask alone. Causal ends are
aligned: the last query sees all keys. No dropout.
SPDX-License-Identifier: MIT
"""

import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Part(NamedTuple):
    """Attention over some of the keys.

    Attributes:
        output: weighted mean of their values, (B, heads, T, d_v); zeros if there is no key.
        lse: log of the sum of the exponentials of their scores, (B, heads, T); minus infinity without a key.
    """

    output: Tensor
    lse: Tensor


class Running(NamedTuple):
    """What is kept of the keys read so far, whose scores are s and values v.

    Attributes:
        largest: m = max s, (B, heads, T, 1); minus infinity before the first key.
        total: sum of exp(s - m), (B, heads, T, 1).
        read: sum of exp(s - m) v, (B, heads, T, d_v).
    """

    largest: Tensor
    total: Tensor
    read: Tensor


def start(query: Tensor, width: int) -> Running:
    """Return what is known before the first key, for queries (B, heads, T, d) and values of this width."""
    shape = query.shape[:3]
    return Running(
        query.new_full((*shape, 1), -torch.inf), query.new_zeros(*shape, 1), query.new_zeros(*shape, width)
    )


def update(running: Running, scores: Tensor, value: Tensor) -> Running:
    """Read one more block of keys: scores (B, heads, T, S), minus infinity where hidden, and their values.

    exp(1000) is beyond every type; what counts is how far a score is below the largest:

    >>> one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    >>> running = update(start(one, 1), 1000 * one, zero)
    >>> running = update(running, 1001 * one, one)
    >>> print(f"{(running.read / running.total).item():.4f}")  # the second weight of softmax(1000, 1001)
    0.7311
    """
    largest = torch.maximum(running.largest, scores.amax(dim=-1, keepdim=True))
    reference = _finite(largest)
    shrink = (running.largest - reference).exp()  # what was summed so far has another reference
    weights = (scores - reference).exp()  # (B, heads, T, S)
    total = shrink * running.total + weights.sum(dim=-1, keepdim=True)
    read = shrink * running.read + weights @ value
    return Running(largest, total, read)


def finish(running: Running) -> Part:
    """Divide by the sum, once, after the last key."""
    largest, total, read = running
    return Part(read / total.masked_fill(total == 0, 1.0), (largest + total.log()).squeeze(-1))


def merge(first: Part, second: Part) -> Part:
    """Join attention over two sets of keys without a common one; the order is free, and each may be empty."""
    reference = _finite(torch.maximum(first.lse, second.lse))
    one, other = (first.lse - reference).exp(), (second.lse - reference).exp()  # (B, heads, T)
    total = one + other
    empty = total == 0
    total = total.masked_fill(empty, 1.0)
    output = (one / total)[..., None] * first.output + (other / total)[..., None] * second.output
    return Part(output, (reference + total.log()).masked_fill(empty, -torch.inf))


class _OnlineSoftmax(torch.autograd.Function):
    """Keeps the log-sum-exp, from which backward computes the weights of each tile once more."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, blocks: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        output, lse = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3])
        for rows, seen in _tiles(q, k, is_causal, blocks):
            running = start(q[:, :, rows], v.shape[3])
            for columns in seen:
                scores = _scores(q, k, mask, is_causal, rows, columns)
                running = update(running, scores, v[:, :, columns])
            output[:, :, rows], lse[:, :, rows] = finish(running)
        return output, lse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.is_causal, ctx.blocks = inputs
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, output, lse = ctx.saved_tensors
        lse = _finite(lse)[..., None]  # (B, heads, T, 1)
        mean = (d_output * output).sum(dim=-1, keepdim=True) - d_lse[..., None]  # D of the paper
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows, seen in _tiles(q, k, ctx.is_causal, ctx.blocks):
            for columns in seen:
                weights = (_scores(q, k, mask, ctx.is_causal, rows, columns) - lse[:, :, rows]).exp()
                d_weights = d_output[:, :, rows] @ v[:, :, columns].mT  # (B, heads, rows, columns)
                d_scores = weights * (d_weights - mean[:, :, rows]) * q.shape[-1] ** -0.5
                dq[:, :, rows] += d_scores @ k[:, :, columns]
                dk[:, :, columns] += d_scores.mT @ q[:, :, rows]
                dv[:, :, columns] += weights.mT @ d_output[:, :, rows]
        return dq, dk, dv, None, None, None


class OnlineSoftmaxAttention(nn.Module):
    """Scaled dot-product attention that never holds more of its weights than one tile.

    g(x) = softmax(Q K^T / sqrt(d)) over the keys that may be seen; f(g, x) = g V.

    Args:
        query_block, key_block: rows and columns of a tile; any numbers, the result is the same.
        is_causal: hides later keys; the ends are aligned, so the last query sees all keys.

    Shape:
        - query: (B, heads, T, d)
        - key: (B, heads, S, d)
        - value: (B, heads, S, d_v)
        - mask: bool, True = may be attended; four dimensions that broadcast to (B, heads, T, S)
        - attention(...): (B, heads, T, S); rows sum to one, or to zero where nothing may be seen
        - forward(...): (B, heads, T, d_v)
        - parts(...): a `Part`, output (B, heads, T, d_v) and lse (B, heads, T)

    Sums are taken in float32 at least; under autocast the products are in its type. There is no forward mode
    (`torch.func.jvp`).

    Raises:
        ValueError: a block is below 1, or query, key, value or mask do not fit each other.
        TypeError: `mask` is not bool.

    The tiles do not matter:

    >>> attend, (query, key, value) = example()
    >>> whole = attend.attention(query, key) @ value
    >>> tiles = [(1, 1), (7, 30), (500, 500)]
    >>> outputs = [OnlineSoftmaxAttention(*tile)(query, key, value) for tile in tiles]
    >>> [torch.allclose(output, whole, atol=1e-6) for output in outputs]
    [True, True, True]

    Keys read in two places are read as one, once the parts are merged; their mean is something else:

    >>> left = attend.parts(query, key[:, :, :30], value[:, :, :30])
    >>> right = attend.parts(query, key[:, :, 30:], value[:, :, 30:])
    >>> torch.allclose(merge(left, right).output, whole, atol=1e-6)
    True
    >>> torch.allclose((left.output + right.output) / 2, whole, atol=0.1)
    False
    """

    def __init__(self, query_block: int = 256, key_block: int = 512, is_causal: bool = False) -> None:
        super().__init__()
        if query_block < 1 or key_block < 1:
            raise ValueError(f"query_block {query_block} and key_block {key_block} must be at least 1")
        self.blocks = operator.index(query_block), operator.index(key_block)
        self.is_causal = is_causal

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x) = exp(scores - lse), never held by `forward`: (B, heads, T, S). `value` is not used."""
        lse = _finite(self.parts(query, key, key, mask).lse)[..., None]  # (B, heads, T, 1)
        rows, columns = slice(0, query.shape[2]), slice(0, key.shape[2])
        allowed = None if mask is None else mask.expand(*query.shape[:3], key.shape[2])
        scores = _scores(query.to(lse), key.to(lse), allowed, self.is_causal, rows, columns)
        return (scores - lse).exp().to(query)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), tile by tile: (B, heads, T, d_v)."""
        return self.parts(query, key, value, mask).output

    def parts(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Part:
        """Return output and log-sum-exp; with the latter `merge` joins them to attention over other keys."""
        _check(query, key, value, mask)
        if mask is not None:
            mask = mask.expand(*query.shape[:3], key.shape[2])  # (B, heads, T, S), a view
        exact = torch.promote_types(query.dtype, torch.float32)
        q, k, v = query.to(exact), key.to(exact), value.to(exact)
        output, lse = _OnlineSoftmax.apply(q, k, v, mask, self.is_causal, self.blocks)  # type: ignore[no-untyped-call]
        return Part(output.to(value.dtype), lse)


def _tiles(
    q: Tensor, k: Tensor, is_causal: bool, blocks: tuple[int, int]
) -> Iterator[tuple[slice, list[slice]]]:
    """Yield each block of queries, and the blocks of keys that it may see."""
    T, S = q.shape[2], k.shape[2]
    for row in range(0, T, blocks[0]):
        rows = slice(row, min(row + blocks[0], T))
        end = rows.stop + S - T if is_causal else S  # the keys from here on are later than all these queries
        yield rows, [slice(column, min(column + blocks[1], S)) for column in range(0, end, blocks[1])]


def _scores(
    q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool, rows: slice, columns: slice
) -> Tensor:
    """Return one tile of the scores, minus infinity where hidden: (B, heads, rows, columns)."""
    scores: Tensor = (q[:, :, rows] * q.shape[-1] ** -0.5) @ k[:, :, columns].mT
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, rows, columns], -torch.inf)
    seen = rows.start + k.shape[2] - q.shape[2] - columns.start  # the last column that the first row sees
    if is_causal and seen < scores.shape[3] - 1:
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(seen + 1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores


def _finite(reference: Tensor) -> Tensor:
    """Put zero in the place of minus infinity: where there is no key, exp(-inf - 0) is 0 and not NaN."""
    return reference.masked_fill(reference == -torch.inf, 0.0)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """Refuse what would broadcast."""
    if (
        query.dim() != 4
        or key.dim() != 4
        or query.shape[:2] != key.shape[:2]
        or query.shape[3] != key.shape[3]
    ):
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, heads, T, d) and "
            "(B, heads, S, d) with the same B, heads and d"
        )
    if value.shape[:-1] != key.shape[:-1]:
        raise ValueError(
            f"value {tuple(value.shape)} must be (B, heads, S, d_v) with B, heads and S of key "
            f"{tuple(key.shape)}"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    shape = (*query.shape[:3], key.shape[2])
    if mask.dim() != 4 or any(n not in (1, full) for n, full in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"mask {tuple(mask.shape)} must have four dimensions that broadcast to (B, heads, T, S) = "
            f"{shape}; (T, S) is passed as mask[None, None], padding (B, S) as padding[:, None, None]"
        )


def example(
    B: int = 2, heads: int = 3, T: int = 40, S: int = 60, d: int = 8, d_v: int = 5
) -> tuple[OnlineSoftmaxAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return attention in tiles of 32 x 48 and seeded queries, keys and values."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, *shape) for shape in ((T, d), (S, d), (S, d_v)))
    return OnlineSoftmaxAttention(32, 48).eval(), (query, key, value)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attend, (query, key, value) = example(**sizes)
    causal = OnlineSoftmaxAttention(32, 48, is_causal=True).eval()
    mask = torch.rand(*query.shape[:3], key.shape[2]) > 0.3
    mask[:, :, 0] = False
    return {
        "causal": (causal, (query, key, value)),
        "masked": (attend, (query, key, value, mask)),
    }


if __name__ == "__main__":
    attend, (query, key, value) = example()
    difference = attend(query, key, value) - attend.attention(query, key) @ value
    print(f"tile by tile differs from the whole matrix by {difference.abs().max():.0e}")
    halves = [
        attend.parts(query, key[:, :, half], value[:, :, half]) for half in (slice(30), slice(30, None))
    ]
    difference = merge(*halves).output - attend(query, key, value)
    print(f"two halves of the keys, merged, by {difference.abs().max():.0e}")
