"""Paged attention: keys and values of many sequences lie in pages of one pool, found by a table.

Paper: Woosuk Kwon, Zhuohan Li, Siyuan Zhuang, Ying Sheng, Lianmin Zheng, Cody Hao Yu, Joseph E. Gonzalez,
Hao Zhang, Ion Stoica, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
SOSP 2023, arXiv 2309.06180.
Code: vllm-project/vllm 00df0753, tests/kernels/attention/test_attention.py (the reference of its kernel).
Differs: the cache is a value, so a step copies the pool, which grows as needed; a server reserves it once and
writes in place. Pages are gathered for torch's kernel; vLLM's reads them where they lie. Reference counts are
counted from the table. If several sequences write to a shared page, each gets a copy; one after the other,
the last could keep it. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PagedCache(NamedTuple):
    """What a layer keeps of several sequences.

    Attributes:
        keys, values: (N, P, heads, d), a pool of N pages with P tokens each.
        table: (B, M), the page with tokens m P to m P + P - 1 of each sequence; -1 where there is none.
        length: (B,), number of tokens that each sequence has read.
    """

    keys: Tensor
    values: Tensor
    table: Tensor
    length: Tensor

    def users(self) -> Tensor:
        """Return how many sequences hold each page, its reference count: (N,). A page of nobody is free."""
        return torch.bincount(self.table[self.table >= 0], minlength=len(self.keys))

    def take(self, rows: Sequence[int]) -> "PagedCache":
        """Return the cache of these sequences, in this order; -1 stands for a new one without tokens.

        A sequence that is named twice is forked: both share all its pages. One that is left out has ended,
        and its pages are free unless others share them.

        Raises:
            ValueError: a row is not in [-1, B).
            TypeError: a row is no integer.
        """
        if not all(-1 <= row < len(self.table) for row in rows):
            raise ValueError(f"rows {list(rows)} must be in [-1, {len(self.table)})")
        chosen = [operator.index(row) for row in rows]
        index = torch.tensor(chosen, dtype=torch.long, device=self.table.device)
        table = F.pad(self.table, (0, 0, 0, 1), value=-1)[index]  # the last row is that of a new sequence
        used = int((table >= 0).any(dim=0).sum())  # columns; those behind were of a sequence that has ended
        return self._replace(table=table[:, :used], length=F.pad(self.length, (0, 1))[index])


class PagedAttention(nn.Module):
    """Causal multi-head self-attention over sequences of any lengths, whose tokens lie in pages.

    g(x) = softmax(Q K^T / sqrt(d)) per head over the tokens up to the query's own; f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E.
        page_size: number P of tokens in a page.

    Shape:
        - x: (B, T, E), in `step` the next T tokens of each sequence
        - state: a `PagedCache`, or None at the start
        - count: (B,), how many of its T tokens each sequence reads, all if not given. What follows is
          padding; it sees nothing, and its output is the bias of `out_proj`
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), `count`
            is not (B,) or not in [0, T], or `state` is not one that fits this layer, `x` and its dtype.
        TypeError: `count` is not integer.

    Seven tokens fill two pages of three and begin a third. Forked, both sequences share them:

    >>> layer, (x,) = example()
    >>> _, prompt = layer.step(x[:1, :7])
    >>> forked = prompt.take([0, 0])
    >>> forked.users().tolist()
    [2, 2, 2]

    The next token of each goes to a copy of the third page, which nobody needs any longer:

    >>> y, state = layer.step(x[:, 7:8], forked)
    >>> state.table.tolist(), state.users().tolist()
    ([[0, 1, 3], [0, 1, 4]], [2, 2, 0, 1, 1])
    >>> torch.allclose(y[0], layer(x[:1, :8])[0, 7:], atol=1e-6)
    True
    """

    def __init__(self, embed_dim: int, num_heads: int, page_size: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or page_size < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and page_size {page_size} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads, self.page_size = operator.index(num_heads), operator.index(page_size)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        scores: Tensor = (q * q.shape[-1] ** -0.5).transpose(1, 2) @ k.permute(0, 2, 3, 1)  # (B, heads, T, T)
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once, no pages: (B, T, E) -> (B, T, E)."""
        q, k, v = (part.transpose(1, 2) for part in self._project(x))  # (B, heads, T, d)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(
        self, x: Tensor, state: PagedCache | None = None, count: Tensor | None = None
    ) -> tuple[Tensor, PagedCache]:
        """Read the next tokens of each sequence; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        cache = self._empty(k) if state is None else _checked(state, k, self.page_size)
        count = _counted(count, x)
        token = torch.arange(x.shape[1], device=x.device)
        position = cache.length[:, None] + token  # (B, T)
        real = token < count[:, None]  # (B, T)
        cache = _with_pages(cache, count)
        sequence, _ = real.nonzero(as_tuple=True)
        page = cache.table[sequence, position[real] // self.page_size]
        row = position[real] % self.page_size
        keys = cache.keys.index_put((page, row), k[real])
        values = cache.values.index_put((page, row), v[real])
        in_order = cache.table.clamp(min=0)  # pages that are not there lie behind every query
        place = torch.arange(in_order.shape[1] * self.page_size, device=x.device)  # (M P)
        unwritten = (place >= (cache.length + count)[:, None])[:, None, :, None]  # may hold what others left
        k = keys[in_order].flatten(1, 2).transpose(1, 2).masked_fill(unwritten, 0.0)  # (B, heads, M P, d)
        v = values[in_order].flatten(1, 2).transpose(1, 2).masked_fill(unwritten, 0.0)  # (B, heads, M P, d)
        visible = (place <= position[..., None]) & real[..., None]
        heads = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, visible[:, None])
        return self._merge(heads), PagedCache(keys, values, cache.table, cache.length + count)

    def _empty(self, k: Tensor) -> PagedCache:
        pool = k.new_zeros(0, self.page_size, *k.shape[2:])
        length = torch.zeros(len(k), dtype=torch.long, device=k.device)
        return PagedCache(pool, pool, length.new_empty(len(k), 0), length)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        return self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1))  # (B, T, heads, d)
        return heads

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _with_pages(cache: PagedCache, count: Tensor) -> PagedCache:
    """Give each sequence the pages that its next tokens go to, and a copy of one that it shares."""
    P, users = cache.keys.shape[1], cache.users()
    needed = (cache.length + count + P - 1) // P  # (B,)
    missing = max(int(F.pad(needed, (0, 1)).max()) - cache.table.shape[1], 0)  # a batch may be empty
    table = F.pad(cache.table, (0, missing), value=-1)  # (B, M)
    place = torch.arange(table.shape[1], device=table.device)
    written = (place >= (cache.length // P)[:, None]) & (place < needed[:, None]) & (count > 0)[:, None]
    shared = written & (F.pad(users, (0, 1))[table] > 1)  # the zero behind the last count is that of -1
    fresh = shared | (written & (table < 0))
    free = (users == 0).nonzero().flatten()
    more = max(int(fresh.sum()) - len(free), 0)  # pages that the pool lacks
    free = torch.cat([free, torch.arange(len(users), len(users) + more, device=free.device)])
    copies = table.masked_scatter(fresh, free)
    keys, values = (F.pad(pool, (0, 0, 0, 0, 0, 0, 0, more)) for pool in (cache.keys, cache.values))
    keys = keys.index_copy(0, copies[shared], keys[table[shared]])
    values = values.index_copy(0, copies[shared], values[table[shared]])
    return PagedCache(keys, values, copies, cache.length)


def _counted(count: Tensor | None, x: Tensor) -> Tensor:
    """Refuse counts that do not fit x (B, T, E); all of its tokens if None."""
    B, T, _ = x.shape
    if count is None:
        return torch.full((B,), T, device=x.device)
    if count.is_floating_point() or count.is_complex() or count.dtype == torch.bool:
        raise TypeError(f"count must be integer, not {count.dtype}")
    if count.shape != (B,):
        raise ValueError(f"count {tuple(count.shape)} must be (B,) = {(B,)}")
    if (count < 0).any() or (count > T).any():
        raise ValueError(f"count {count.tolist()} must be in [0, {T}]")
    return count


def _checked(state: PagedCache, k: Tensor, page_size: int) -> PagedCache:
    """Refuse a state that cannot be of the layer with these keys (B, T, heads, d)."""
    if not isinstance(state, PagedCache):
        raise ValueError(f"state {type(state).__name__} must be a PagedCache")
    B, _, heads, d = k.shape
    N = len(state.keys)
    for name, kept in (("keys", state.keys), ("values", state.values)):
        if kept.shape != (N, page_size, heads, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (N, P, heads, d) = "
                f"{(N, page_size, heads, d)} of {k.dtype}"
            )
    if len(state.table) != B or len(state.length) != B:
        raise ValueError(f"state table {tuple(state.table.shape)} must be (B, M) with B = {B}")
    held = (state.table >= 0).sum(dim=1)
    if (state.table >= N).any() or (state.length > held * page_size).any():
        raise ValueError(
            f"state table {state.table.tolist()} must be pages below {N}, enough for the lengths "
            f"{state.length.tolist()}"
        )
    return state


def example(
    B: int = 2, T: int = 12, E: int = 64, heads: int = 4, P: int = 3
) -> tuple[PagedAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features, pages of P tokens."""
    torch.manual_seed(0)
    return PagedAttention(E, heads, P).eval(), (torch.randn(B, T, E),)


if __name__ == "__main__":
    layer, (x,) = example()
    lengths = torch.tensor([12, 5])
    _, state = layer.step(x, count=lengths)
    print(f"tables {state.table.tolist()} for {state.length.tolist()} tokens")
    _, state = layer.step(x[:, :1], state.take([1, -1]))
    print(f"tables {state.table.tolist()} after the first has ended and a new one has come")
