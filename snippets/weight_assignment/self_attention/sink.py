"""Attention sinks: a logit of its own, or the first tokens, take the weight that no key has earned.

Paper: Guangxuan Xiao, Yuandong Tian, Beidi Chen, Song Han, Mike Lewis, "Efficient Streaming Language Models
with Attention Sinks", ICLR 2024, arXiv 2309.17453 (first tokens).
Softmax plus one: Evan Miller, "Attention Is Off By One", 2023, an article on the web.
Code: openai/gpt-oss 7b58334, gpt_oss/torch/model.py (learned logits); mit-han-lab/streaming-llm 2e50426,
streaming_llm/kv_cache.py (first tokens); huggingface/transformers 5.23.0, models/gpt_oss/modeling_gpt_oss.py.
Differs: tokens have no positions, so that those kept need no new ones when others are dropped; the released
codes rotate queries and keys. Learned logits start at zero, those of gpt-oss at random; all else starts as
`nn.Linear` does.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("learned", "plus_one", "tokens")


class SinkCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token kept, in their order.
        position: (S,), the place in the sequence of the token in each slot.
        seen: number of tokens read so far, which is the position of the next one.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    seen: int


class SinkAttention(nn.Module):
    """Causal multi-head self-attention whose weights need not sum to one over the tokens that count.

    g(x)_ij = exp(s_ij) / (exp(sink) + sum_j exp(s_ij)) per head, with s = Q K^T / sqrt(d) over the tokens up
    to the query's own; f(g, x) = concat(g V) W_O. It is a softmax over one key more, whose score is `sink`
    for every query and whose value is zero.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E.
        mode: what takes the weight that no key has earned: "learned", a logit for each head; "plus_one", a
            logit of zero; "tokens", no logit, so that it falls on tokens, such as the `first`.
        first: number of tokens at the beginning that every query sees, if there is a `window`.
        window: number of tokens that a query sees, itself included; all before it if not given.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `SinkCache`, or None at the start; with a `window`, of those tokens that the next one sees
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1 (`first` below 0), `num_heads` does not divide `embed_dim`, `mode` is
            none of `MODES`, `x` is not (B, T, E), or `state` is not one that fits this layer, `x` and its
            dtype.

    A logit of zero is worth as much as a key with score zero, and what it takes is read from nowhere:

    >>> _, (x,) = example()
    >>> plus_one = SinkAttention(64, 4, "plus_one").eval()
    >>> _ = nn.init.zeros_(plus_one.k_proj.weight), nn.init.zeros_(plus_one.k_proj.bias)
    >>> [round(w, 4) for w in plus_one.attention(x)[0, 0].sum(dim=1).tolist()[:4]]  # over 1, 2, 3, 4 tokens
    [0.5, 0.6667, 0.75, 0.8]

    Two first tokens and a window of four: what nine tokens leave for the tenth, which sees itself, too.

    >>> stream = SinkAttention(64, 4, "tokens", first=2, window=4)
    >>> stream.step(x[:, :9])[1].position.tolist()
    [0, 1, 6, 7, 8]
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mode: str = "learned",
        first: int = 0,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if not first >= 0:
            raise ValueError(f"first {first} must be at least 0")
        if window is not None and not window >= 1:
            raise ValueError(f"window {window} must be at least 1")
        self.num_heads, self.mode, self.first = operator.index(num_heads), mode, operator.index(first)
        self.window = None if window is None else operator.index(window)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        if mode == "learned":
            self.sink = nn.Parameter(torch.empty(num_heads))
        elif mode == "plus_one":
            self.register_buffer("sink", torch.empty(num_heads), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the logits at zero, which is softmax plus one."""
        if self.mode != "tokens":
            nn.init.zeros_(self.sink)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        position = torch.arange(x.shape[1], device=x.device)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, heads, T, T)
        scores = scores.masked_fill(~self._visible(position, position), -torch.inf)
        if self.mode == "tokens":
            return scores.softmax(dim=-1)
        sink = self.sink[:, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat([sink, scores], dim=-1).softmax(dim=-1)[..., 1:]

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x)
        if self.window is None:
            return self._merge(self._read(q, k, v))
        position = torch.arange(x.shape[1], device=x.device)
        return self._merge(self._read(q, k, v, self._visible(position, position)))

    def step(self, x: Tensor, state: SinkCache | None = None) -> tuple[Tensor, SinkCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        position = new = torch.arange(x.shape[1], device=x.device)
        if state is not None:
            _check(state, k, self.first, self.window)
            new = new + state.seen
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
            position = torch.cat([state.position, new])  # (S)
        y = self._merge(self._read(q, k, v, self._visible(new, position)))
        seen = x.shape[1] if state is None else state.seen + x.shape[1]
        if self.window is not None:
            kept = self._visible(new.new_tensor([seen]), position)[0]  # by the next token
            k, v, position = k[:, :, kept], v[:, :, kept], position[kept]
        return y, SinkCache(k, v, position, seen)

    def _visible(self, query: Tensor, key: Tensor) -> Tensor:
        """Return which positions (S) the queries at positions (T) see: (T, S)."""
        distance = query[:, None] - key
        if self.window is None:
            return distance >= 0
        return (distance >= 0) & ((distance < self.window) | (key < self.first))

    def _read(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the weighted mean of the values: (B, heads, T, d)."""
        T, d = q.shape[2:]
        if self.mode != "tokens":
            # In front a key without a value, whose score comes from a feature that all queries share, and a
            # query whose output is dropped, so that `is_causal` lets the others see that key
            q = F.pad(q, (0, 1, 1, 0), value=d**0.5)  # (B, heads, 1 + T, d + 1)
            k, v = F.pad(k, (0, 1, 1, 0)), F.pad(v, (0, 1, 1, 0))  # (B, heads, 1 + S, d + 1)
            k[:, :, 0, d] = self.sink
            visible = None if visible is None else F.pad(visible, (1, 0, 1, 0), value=True)
        heads = F.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None, scale=d**-0.5)
        return heads[:, :, q.shape[2] - T :, :d]

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


def _check(state: SinkCache, k: Tensor, first: int, window: int | None) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, SinkCache):
        raise ValueError(f"state {type(state).__name__} must be a SinkCache")
    B, heads, _, d = k.shape
    S = len(state.position)
    for name, kept in (("keys", state.keys), ("values", state.values)):
        if kept.shape != (B, heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {k.dtype}"
            )
    slots = state.seen if window is None else min(state.seen, first + window - 1)
    if slots != S:
        raise ValueError(f"state position {tuple(state.position.shape)} must be (S,) = {(slots,)}")


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[SinkAttention, tuple[Tensor]]:
    """Return a seeded layer with logits as after training, and its input: B sequences of T tokens."""
    torch.manual_seed(0)
    layer = SinkAttention(E, heads).eval()
    nn.init.normal_(layer.sink)
    return layer, (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {
        "plus_one": (SinkAttention(E, heads, "plus_one").eval(), (x,)),
        "tokens": (SinkAttention(E, heads, "tokens", first=2, window=4).eval(), (x,)),
        "learned_window": (SinkAttention(E, heads, "learned", first=1, window=3).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    sums = layer.attention(x)[0, :, -1].sum(dim=-1)
    for logit, total in zip(layer.sink.tolist(), sums.tolist(), strict=True):
        print(f"sink {logit:5.2f}: the weights of the last token sum to {total:.2f}")
