"""Sliding-window attention: a token sees the last W tokens, itself included, so work and cache stop growing.

Paper: Iz Beltagy, Matthew E. Peters, Arman Cohan, "Longformer: The Long-Document Transformer", arXiv 2020,
arXiv 2004.05150 (windows to both sides); the causal window and its ring: Albert Q. Jiang and others,
"Mistral 7B", arXiv 2023, arXiv 2310.06825.
Code: huggingface/transformers 5.23.0, masking_utils.py and models/mistral/modeling_mistral.py;
mistralai/mistral-inference c18d5b9, one_file_ref.py.
Differs: W counts the token itself, as in transformers; a prompt in Mistral's file sees one token more. Tokens
have no positions, and each query head has keys of its own. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowCache(NamedTuple):
    """What a layer keeps of the tokens that it has read: the last W of them, in a ring.

    Attributes:
        keys, values: (B, heads, W, d); the token at position p takes slot p mod W.
        position: (W,), the place in the sequence of the token in each slot; -1 if the slot is empty.
        seen: number of tokens read so far, which is the position of the next one.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    seen: int


class SlidingWindowAttention(nn.Module):
    """Causal multi-head self-attention to the last W tokens.

    g(x) = softmax(Q K^T / sqrt(d)) per head over i - W < j <= i; f(g, x) = concat(g V) W_O. `forward` reads
    blocks of W queries against 2 W keys, their own block and the one before, so nothing is T x T.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E.
        window: number W of tokens that a query sees, itself included.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `WindowCache`, or None at the start
        - attention(x): (B, heads, T, T), zero outside of the window
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), or
            `state` is not one that fits this layer, `x` and its dtype.

    Each token of a sequence of ten sees at most three:

    >>> layer, (x,) = example()
    >>> (layer.attention(x)[0, 0] > 0).sum(dim=1).tolist()
    [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]

    Through two layers the last token sees five of them, L (W - 1) + 1:

    >>> y = layer(layer(x.requires_grad_()))[0, -1].sum()
    >>> (torch.autograd.grad(y, x)[0][0] != 0).any(dim=1).int().tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """

    def __init__(self, embed_dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or window < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and window {window} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads, self.window = operator.index(num_heads), operator.index(window)
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
        return self._merge(self._read(q, k, v, self._empty(k, slots=0)))

    def step(self, x: Tensor, state: WindowCache | None = None) -> tuple[Tensor, WindowCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        cache = self._empty(k, self.window) if state is None else _checked(state, k, self.window)
        y = self._merge(self._read(q, k, v, cache))
        seen = cache.seen + x.shape[1]
        last = torch.arange(cache.seen, seen, device=x.device)[-self.window :]
        slot = last % self.window
        keys = cache.keys.index_copy(2, slot, k[:, :, -self.window :])  # (B, heads, W, d)
        values = cache.values.index_copy(2, slot, v[:, :, -self.window :])  # (B, heads, W, d)
        return y, WindowCache(keys, values, cache.position.index_copy(0, slot, last), seen)

    def _read(self, q: Tensor, k: Tensor, v: Tensor, cache: WindowCache) -> Tensor:
        """Read the cache with the first W queries, what is left in blocks: (B, heads, T, d)."""
        W, T = self.window, q.shape[2]
        new = torch.arange(cache.seen, cache.seen + min(W, T), device=q.device)
        visible = self._visible(new, torch.cat([cache.position, new]))
        keys = torch.cat([cache.keys, k[:, :, :W]], dim=2)
        values = torch.cat([cache.values, v[:, :, :W]], dim=2)
        first = F.scaled_dot_product_attention(q[:, :, :W], keys, values, visible)
        return first if T <= W else torch.cat([first, self._blocks(q[:, :, W:], k, v)], dim=2)

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Read with the queries after the first W, each block of W against the 2 W keys that end with it."""
        W, (B, heads, T, _) = self.window, q.shape
        if T % W:
            q, k, v = (F.pad(x, (0, 0, 0, -T % W)) for x in (q, k, v))  # to whole blocks
        q = q.unflatten(2, (-1, W)).flatten(0, 1)  # (B heads, blocks, W, d)
        k, v = (x.unfold(2, 2 * W, W).mT.flatten(0, 1) for x in (k, v))  # (B heads, blocks, 2 W, d)
        place = torch.arange(2 * W, device=q.device)
        read = F.scaled_dot_product_attention(q, k, v, self._visible(place[W:], place))
        left: Tensor = read.flatten(1, 2)[:, :T].unflatten(0, (B, heads))  # (B, heads, T, d)
        return left

    def _visible(self, query: Tensor, key: Tensor) -> Tensor:
        """Return which positions (S) the queries at positions (T) see, in whatever slots: (T, S)."""
        distance = query[:, None] - key
        return (key >= 0) & (distance >= 0) & (distance < self.window)

    def _empty(self, k: Tensor, slots: int) -> WindowCache:
        keys = k.new_zeros(*k.shape[:2], slots, k.shape[3])
        position = torch.full((slots,), -1, device=k.device)
        return WindowCache(keys, torch.zeros_like(keys), position, 0)

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


def _checked(state: WindowCache, k: Tensor, window: int) -> WindowCache:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, WindowCache):
        raise ValueError(f"state {type(state).__name__} must be a WindowCache")
    B, heads, _, d = k.shape
    for name, kept in (("keys", state.keys), ("values", state.values)):
        if kept.shape != (B, heads, window, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, W, d) = "
                f"{(B, heads, window, d)} of {k.dtype}"
            )
    if state.position.shape != (window,):
        raise ValueError(f"state position {tuple(state.position.shape)} must be (S,) = {(window,)}")
    values = not state.position.is_meta and not torch.compiler.is_compiling()  # there are some to look at
    if values and (state.position >= state.seen).any():
        raise ValueError(f"state position {state.position.tolist()} must be below seen {state.seen}")
    return state


def example(
    B: int = 2, T: int = 10, E: int = 64, heads: int = 4, W: int = 3
) -> tuple[SlidingWindowAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return SlidingWindowAttention(E, heads, W).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {
        "one_block": (SlidingWindowAttention(E, heads, 64).eval(), (x,)),
        "two_blocks": (SlidingWindowAttention(E, heads, 5).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example(B=1, T=4096, W=128)
    y, state = layer.step(x[:, :4095])
    print(f"cache {tuple(state.keys.shape)} after {state.seen} tokens")
    last, _ = layer.step(x[:, 4095:], state)
    print(f"differs from the full pass by {(last - layer(x)[:, 4095:]).abs().max():.0e}")
