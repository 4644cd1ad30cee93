"""KV cache: a causal layer keeps the keys and values of all tokens read, and adds those of the new ones.

Paper: Noam Shazeer, "Fast Transformer Decoding: One Write-Head is All You Need", arXiv 2019, arXiv 1911.02150
(incremental inference).
Code: huggingface/transformers 5.23.0, cache_utils.py (DynamicLayer, StaticSlidingWindowLayer) and
models/gpt2/modeling_gpt2.py; mistralai/mistral-inference c18d5b9, one_file_ref.py (the ring).
Differs: the state is a value: `step` returns a new one and leaves the old, so a prompt can be continued in
several ways. The ring knows the position of each slot, so several tokens may be read at once. Start values
are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KVCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token kept.
        position: (S,), the place in the sequence of the token in each slot; -1 if the slot is empty.
        seen: number of tokens read so far, which is the position of the next one.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    seen: int


class CachedAttention(nn.Module):
    """Causal multi-head self-attention that reads a sequence at once or in pieces.

    g(x) = softmax(Q K^T / sqrt(d)) per head over the tokens up to the query's own; f(g, x) = concat(g V) W_O.
    `step` computes Q, K and V of the new tokens alone, and takes the other keys and values from the cache.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E.
        window: number of tokens that a query sees, itself included; all before it if not given. With a window
            the cache is a ring of so many slots, where the token at position p takes slot p mod window.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `KVCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), or
            `state` is not one that fits this layer, `x` and its dtype.

    However the sequence is cut, the outputs are those of the full pass:

    >>> layer, (x,) = example()
    >>> start, state = layer.step(x[:, :6])
    >>> middle, state = layer.step(x[:, 6:7], state)
    >>> end, state = layer.step(x[:, 7:], state)
    >>> torch.allclose(torch.cat([start, middle, end], dim=1), layer(x), atol=1e-6)
    True

    A ring of four slots after nine tokens: position 8 has taken the slot of position 4.

    >>> ring = CachedAttention(embed_dim=64, num_heads=4, window=4)
    >>> ring.step(x[:, :9])[1].position.tolist()
    [8, 5, 6, 7]
    """

    def __init__(self, embed_dim: int, num_heads: int, window: int | None = None) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if window is not None and not window >= 1:
            raise ValueError(f"window {window} must be at least 1")
        self.num_heads = operator.index(num_heads)
        self.window = None if window is None else operator.index(window)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, heads, T, T)
        position = torch.arange(x.shape[1], device=x.device)
        return scores.masked_fill(~self._visible(position, position), -torch.inf).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x)
        if self.window is None:
            return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        position = torch.arange(x.shape[1], device=x.device)
        return self._merge(F.scaled_dot_product_attention(q, k, v, self._visible(position, position)))

    def step(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        cache = self._empty(k) if state is None else _checked(state, k, self.window)
        seen = cache.seen + x.shape[1]
        new = torch.arange(cache.seen, seen, device=x.device)
        # Read, then write: a ring still holds tokens that the first of the new queries see
        keys = torch.cat([cache.keys, k], dim=2)  # (B, heads, S + T, d)
        values = torch.cat([cache.values, v], dim=2)  # (B, heads, S + T, d)
        position = torch.cat([cache.position, new])  # (S + T)
        y = self._merge(F.scaled_dot_product_attention(q, keys, values, self._visible(new, position)))
        if self.window is None:
            return y, KVCache(keys, values, position, seen)
        k, v, new = k[:, :, -self.window :], v[:, :, -self.window :], new[-self.window :]
        slot = new % self.window
        keys = cache.keys.index_copy(2, slot, k)  # (B, heads, W, d)
        values = cache.values.index_copy(2, slot, v)  # (B, heads, W, d)
        return y, KVCache(keys, values, cache.position.index_copy(0, slot, new), seen)

    def _visible(self, query: Tensor, key: Tensor) -> Tensor:
        """Return which positions (S) the queries at positions (T) see, in whatever slots: (T, S)."""
        distance = query[:, None] - key
        visible = (key >= 0) & (distance >= 0)
        return visible if self.window is None else visible & (distance < self.window)

    def _empty(self, k: Tensor) -> KVCache:
        slots = self.window or 0
        keys = k.new_zeros(*k.shape[:2], slots, k.shape[3])
        position = torch.full((slots,), -1, device=k.device)
        return KVCache(keys, torch.zeros_like(keys), position, 0)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        return self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _checked(state: KVCache, k: Tensor, window: int | None) -> KVCache:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, KVCache):
        raise ValueError(f"state {type(state).__name__} must be a KVCache")
    B, heads, _, d = k.shape
    slots = state.seen if window is None else window
    for name, kept in (("keys", state.keys), ("values", state.values)):
        if kept.shape != (B, heads, slots, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, slots, d)} of {k.dtype}"
            )
    if state.position.shape != (slots,):
        raise ValueError(f"state position {tuple(state.position.shape)} must be (S,) = {(slots,)}")
    values = not state.position.is_meta and not torch.compiler.is_compiling()  # there are some to look at
    if values and (state.position >= state.seen).any():
        raise ValueError(f"state position {state.position.tolist()} must be below seen {state.seen}")
    return state


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[CachedAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return CachedAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {"ring": (CachedAttention(E, heads, window=4).eval(), (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    _, state = layer.step(x[:, :9])
    y, state = layer.step(x[:, 9:], state)
    print(f"cache {tuple(state.keys.shape)}, output of the new token {tuple(y.shape)}")
    print(f"differs from the full pass by {(y - layer(x)[:, 9:]).abs().max():.0e}")
