"""Shared keys and values: later layers read those of an earlier one; and one tensor can be both.

Paper: William Brandon, Mayank Mishra, Aniruddha Nrusimha, Rameswar Panda, Jonathan Ragan-Kelley, "Reducing
Transformer Key-Value Cache Size with Cross-Layer Attention", NeurIPS 2024, arXiv 2405.12981.
The later half reads one layer: Yutao Sun, Li Dong, Yi Zhu, Shaohan Huang, Wenhui Wang, Shuming Ma, Quanlu
Zhang, Jianyong Wang, Furu Wei, "You Only Cache Once: Decoder-Decoder Architectures for Language Models",
NeurIPS 2024, arXiv 2405.05254.
Code: huggingface/transformers 5.23.0, models/gemma3n/modeling_gemma3n.py (Gemma3nTextAttention).
Differs: a layer is attention and residual alone, without norms and feed-forward network, and as many heads of
keys as of queries. No layer has a window. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedCache(NamedTuple):
    """What a stack keeps of the tokens that it has read.

    Attributes:
        kept: for each layer that has its own, keys and values, or the one tensor that is both, each
            (B, heads, S, d).
    """

    kept: tuple[tuple[Tensor, ...], ...]


def last_of_kind(kinds: Sequence[str], own: int) -> tuple[int, ...]:
    """Return whose keys each layer reads if only the first `own` layers have any: the last of its own kind.

    Raises:
        ValueError: a kind does not occur among the first `own` layers.

    >>> last_of_kind(["window", "full", "window", "full", "window", "window", "full"], own=4)
    (0, 1, 2, 3, 2, 2, 3)
    """
    last = {kind: layer for layer, kind in enumerate(kinds[:own])}
    if set(kinds) - set(last):
        raise ValueError(f"kinds {tuple(kinds)} must hold each kind among the first {own}")
    return tuple(layer if layer < own else last[kind] for layer, kind in enumerate(kinds))


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Turn features i and i + d / 2 of x (..., T, d) by the position (T) times a speed of the pair's own."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    speed = base ** (-torch.arange(0, x.shape[-1], 2, device=x.device, dtype=dtype) / x.shape[-1])  # (d / 2)
    angle = position.to(dtype)[:, None] * speed  # (T, d / 2)
    cos, sin = angle.cos(), angle.sin()
    first, second = x.to(dtype).chunk(2, dim=-1)  # (..., T, d / 2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class SharingLayer(nn.Module):
    """One layer: its own queries, and keys and values of its own if it `owns` any.

    Tied, one projection makes both: a key, rotated by its position, is read as a value, too. What is read is
    rotated back by the position of the query, so that distances alone are left in it.
    """

    def __init__(self, embed_dim: int, num_heads: int, owns: bool, tied: bool, base: float) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if embed_dim // num_heads % 2:
            raise ValueError(f"head_dim {embed_dim // num_heads} must be even and at least 2")
        if not 0 < base < math.inf:
            raise ValueError(f"base {base} must be above 0 and finite")
        self.num_heads, self.tied, self.base = operator.index(num_heads), tied, base
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False) if owns else None
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False) if owns and not tied else None

    def keep(self, x: Tensor, position: Tensor) -> tuple[Tensor, ...]:
        """Return what is kept of tokens: keys and values, or one tensor, each (B, heads, T, d)."""
        assert self.k_proj is not None
        k = rotate(self._heads(self.k_proj(x)), position, self.base)
        return (k,) if self.v_proj is None else (k, self._heads(self.v_proj(x)))

    def weigh(self, x: Tensor, kept: tuple[Tensor, ...], position: Tensor) -> Tensor:
        """Return the weights of each head: (B, heads, T, S)."""
        q = self._queries(x, position)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ kept[0].mT
        return scores.masked_fill(~_earlier(x, kept), -torch.inf).softmax(dim=-1)

    def forward(self, x: Tensor, kept: tuple[Tensor, ...], position: Tensor) -> Tensor:
        """Return what tokens (B, T, E) read of S tokens kept, T of which are they: (B, T, E)."""
        q = self._queries(x, position)
        heads = F.scaled_dot_product_attention(q, kept[0], kept[-1], _earlier(x, kept))
        if self.tied:
            heads = rotate(heads, -position, self.base)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output

    def _queries(self, x: Tensor, position: Tensor) -> Tensor:
        return rotate(self._heads(self.q_proj(x)), position, self.base)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads


class KVSharingStack(nn.Module):
    """Layers of causal attention with residuals, layer l reading keys and values of layer `sources[l]`.

    g(x)_l = softmax(Q_l K_s^T / sqrt(d)) with s = sources[l]; x <- x + concat(g_l V_s) W_O,l.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; E divided by it is even.
        sources: of each layer, whose keys and values it reads: its own or those of an earlier layer.
        tied: whether one tensor is key and value.
        base: the slowest pair of features turns by about 1 / base per token.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `SharedCache`, or None at the start
        - attention(x): (B, layers, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was
        - prompt(x): (B, 1, E), the last output, and the state

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim` into heads of even width,
            `base` is not above 0 and finite, a source is no layer with its own keys, `x` is not (B, T, E), or
            `state` is not one that fits this stack, `x` and its dtype.

    One of two layers keeps something, so 64 numbers instead of 128; tied, half as many.

    >>> stack, (x,) = example()
    >>> states = [KVSharingStack(32, 4, stack.sources, tied).step(x)[1] for tied in (False, True)]
    >>> [sum(tensor[0, :, 0].numel() for own in state.kept for tensor in own) for state in states]
    [64, 32]

    The last layers need no prompt: they read its last token alone.

    >>> y, _ = stack.prompt(x)
    >>> torch.allclose(y, stack(x)[:, -1:], atol=1e-6)
    True
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        sources: Sequence[int],
        tied: bool = False,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        self.sources = tuple(map(operator.index, sources))
        own = [layer for layer, source in enumerate(self.sources) if source == layer]
        if not own or any(source not in own or source > layer for layer, source in enumerate(self.sources)):
            raise ValueError(f"sources {self.sources} must hold earlier layers with keys of their own")
        self.exit = own[-1] + 1  # from here on no layer keeps anything
        self.layers = nn.ModuleList(
            SharingLayer(embed_dim, num_heads, layer in own, tied, base) for layer in range(len(self.sources))
        )

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights in each layer: (B, T, E) -> (B, layers, heads, T, T)."""
        position, kept, weights = _positions(x, 0), {}, []
        for number, layer in self._numbered():
            if self.sources[number] == number:
                kept[number] = layer.keep(x, position)
            read = kept[self.sources[number]]
            weights.append(layer.weigh(x, read, position))
            x = x + layer(x, read, position)
        return torch.stack(weights, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after all layers: (B, T, E) -> (B, T, E)."""
        return self._read(x, None)[0]

    def step(self, x: Tensor, state: SharedCache | None = None) -> tuple[Tensor, SharedCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        return self._read(x, state)

    def prompt(self, x: Tensor) -> tuple[Tensor, SharedCache]:
        """Return the last output alone, and the state: layers that keep nothing need no other token."""
        return self._read(x, None, last=True)

    def _read(self, x: Tensor, state: SharedCache | None, last: bool = False) -> tuple[Tensor, SharedCache]:
        seen = 0 if state is None else self._seen(state)
        position = _positions(x, seen)
        kept: dict[int, tuple[Tensor, ...]] = {}
        for number, layer in self._numbered():
            if last and number == self.exit:
                x, position = x[:, -1:], position[-1:]
            if self.sources[number] == number:
                new = layer.keep(x, position)
                kept[number] = new if state is None else _joined(state.kept[len(kept)], new, seen)
            x = x + layer(x, kept[self.sources[number]], position)
        return x[:, -1:] if last else x, SharedCache(tuple(kept.values()))

    def _numbered(self) -> Iterator[tuple[int, SharingLayer]]:
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, SharingLayer)
            yield number, layer

    def _seen(self, state: SharedCache) -> int:
        """Return how many tokens a state has seen; refuse one of another stack."""
        layers = len(set(self.sources))
        if not isinstance(state, SharedCache) or len(state.kept) != layers:
            raise ValueError(f"state {type(state).__name__} must be a SharedCache of {layers} layers")
        first = state.kept[0][0]
        return first.shape[2] if first.dim() == 4 else 0


def _positions(x: Tensor, start: int) -> Tensor:
    """Return the positions of tokens (B, T, E) from `start` on: (T)."""
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
    return torch.arange(start, start + x.shape[1], device=x.device)


def _earlier(x: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
    """Which of the S tokens kept the last T, those of x, see, True = may be attended: (T, S)."""
    T, S = x.shape[1], kept[0].shape[2]
    return torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)


def _joined(old: tuple[Tensor, ...], new: tuple[Tensor, ...], seen: int) -> tuple[Tensor, ...]:
    """Return what was kept of the tokens seen with what is new, each (B, heads, T, d), behind it."""
    if len(old) != len(new):
        raise ValueError(f"state kept of {len(old)} must be of {len(new)} tensors a layer")
    for past, now in zip(old, new, strict=True):
        B, heads, _, d = now.shape
        if past.shape != (B, heads, seen, d) or past.dtype != now.dtype:
            raise ValueError(
                f"state kept {tuple(past.shape)} of {past.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, seen, d)} of {now.dtype}"
            )
    return tuple(torch.cat([past, now], dim=2) for past, now in zip(old, new, strict=True))


def example(
    B: int = 3, T: int = 10, E: int = 32, heads: int = 4, layers: int = 2, own: int = 1
) -> tuple[KVSharingStack, tuple[Tensor]]:
    """Return a seeded stack, whose layers read the last of the first `own` ones, and its input."""
    torch.manual_seed(0)
    sources = last_of_kind(["full"] * layers, own)
    return KVSharingStack(E, heads, sources).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    stack, (x,) = example(**sizes)
    E, heads = x.shape[2], stack.attention(x).shape[2]
    return {
        "pairs": (KVSharingStack(E, heads, (0, 0, 2)).eval(), (x,)),
        "tied": (KVSharingStack(E, heads, stack.sources, tied=True).eval(), (x,)),
    }


if __name__ == "__main__":
    stack, (x,) = example()
    for tied in (False, True):
        stack = KVSharingStack(32, 4, stack.sources, tied)
        y, state = stack.prompt(x)
        numbers = sum(tensor[0, :, 0].numel() for kept in state.kept for tensor in kept)
        print(f"sources {stack.sources}, tied {tied}: {numbers} numbers per token")
        print(f"  a prompt read for its last output differs by {(y - stack(x)[:, -1:]).abs().max():.0e}")
