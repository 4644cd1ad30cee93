"""Grouped-query attention: several query heads share one head of keys and values, so a decoder keeps less.

Paper: Joshua Ainslie, James Lee-Thorp, Michiel de Jong, Yury Zemlyanskiy, Federico Lebrón, Sumit Sanghai,
"GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", EMNLP 2023,
arXiv 2305.13245.
Multi-query attention, one such head for all: Noam Shazeer, "Fast Transformer Decoding: One Write-Head is All
You Need", arXiv 2019, arXiv 1911.02150.
Code: huggingface/transformers 5.23.0, models/llama/modeling_llama.py (LlamaAttention).
Differs: tokens have no positions; Llama rotates queries and keys before the scores. As in Llama there are no
biases. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, kv_heads, S, d), one slot for each token, in their order.
    """

    keys: Tensor
    values: Tensor


class GroupedQueryAttention(nn.Module):
    """Causal self-attention where query head h reads the keys and values of head h // (num_heads / kv_heads).

    g(x) = softmax(Q K^T / sqrt(d)) per query head; f(g, x) = concat(g V) W_O. With as many heads of keys and
    values as of queries this is multi-head attention, with `kv_heads=1` multi-query attention.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of query heads; divides E into heads of width d.
        kv_heads: number of heads of keys and values; divides `num_heads`.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `GroupedCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim` or `kv_heads` not `num_heads`,
            `x` is not (B, T, E), or `state` is not one that fits this layer, `x` and its dtype.

    What a decoder keeps of each token, with eight, two and one head of keys and values:

    >>> layer, (x,) = example()
    >>> layers = [GroupedQueryAttention(64, 8, kv_heads) for kv_heads in (8, 2, 1)]
    >>> [sum(kept[0, :, 0].numel() for kept in layer.step(x)[1]) for layer in layers]
    [128, 32, 16]

    Neighbours share a head: without the first one, the first four query heads cannot tell two tokens apart.

    >>> _ = nn.init.zeros_(layer.k_proj.weight[:8])
    >>> (layer.attention(x)[0, :, 1, 0] == 0.5).tolist()
    [True, True, True, True, False, False, False, False]
    """

    def __init__(self, embed_dim: int, num_heads: int, kv_heads: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or kv_heads < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and kv_heads {kv_heads} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if num_heads % kv_heads:
            raise ValueError(f"num_heads {num_heads} must be divisible by kv_heads {kv_heads}")
        self.num_heads, self.kv_heads = operator.index(num_heads), operator.index(kv_heads)
        kv_dim = embed_dim // num_heads * kv_heads
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, kv_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, kv_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each query head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        groups = q.unflatten(1, (self.kv_heads, -1))  # (B, kv_heads, heads / kv_heads, T, d)
        scores: Tensor = (groups * q.shape[-1] ** -0.5) @ k[:, :, None].mT
        earlier = _earlier(x.shape[1], x.shape[1], x.device)
        return scores.flatten(1, 2).masked_fill(~earlier, -torch.inf).softmax(dim=-1)  # (B, heads, T, T)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))

    def step(self, x: Tensor, state: GroupedCache | None = None) -> tuple[Tensor, GroupedCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        if state is not None:
            _check(state, k)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        T, S, group = x.shape[1], k.shape[2], self.num_heads // self.kv_heads
        seen = None if T == 1 else _earlier(T, S, x.device).repeat(group, 1)  # a single token sees all
        # the queries of a group stand one below the other, so that nobody has to copy its keys
        queries = q.unflatten(1, (self.kv_heads, group)).flatten(2, 3)  # (B, kv_heads, group T, d)
        heads = F.scaled_dot_product_attention(queries, k, v, seen)
        return self._merge(heads.unflatten(2, (group, -1)).flatten(1, 2)), GroupedCache(k, v)

    def pooled(self, kv_heads: int) -> "GroupedQueryAttention":
        """Return a layer with fewer heads of keys and values, each the mean of those of a group.

        Where training goes on, not a conversion: what told the heads of a group apart is gone.

        Raises:
            ValueError: `kv_heads` is below 1 or does not divide that of this layer.
        """
        if kv_heads < 1 or self.kv_heads % kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must be divisible by kv_heads {kv_heads}")
        fewer = GroupedQueryAttention(self.q_proj.in_features, self.num_heads, kv_heads)
        fewer.to(self.q_proj.weight)  # the same device and dtype
        state, group = self.state_dict(), self.kv_heads // kv_heads
        for name in ("k_proj.weight", "v_proj.weight"):
            heads = state[name].unflatten(0, (kv_heads, group, -1))  # (kv_heads, group, d, E)
            state[name] = heads.mean(dim=1).flatten(0, 1)
        fewer.load_state_dict(state)
        return fewer

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q = self.q_proj(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        k = self.k_proj(x).unflatten(2, (self.kv_heads, -1)).transpose(1, 2)  # (B, kv_heads, T, d)
        v = self.v_proj(x).unflatten(2, (self.kv_heads, -1)).transpose(1, 2)  # (B, kv_heads, T, d)
        return q, k, v

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _check(state: GroupedCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, kv_heads, T, d)."""
    if not isinstance(state, GroupedCache):
        raise ValueError(f"state {type(state).__name__} must be a GroupedCache")
    B, kv_heads, _, d = k.shape
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    for name, kept in state._asdict().items():
        if kept.shape != (B, kv_heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, kv_heads, S, d) = "
                f"{(B, kv_heads, S, d)} of {k.dtype}"
            )


def example(
    B: int = 3, T: int = 10, E: int = 64, heads: int = 8, kv_heads: int = 2
) -> tuple[GroupedQueryAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return GroupedQueryAttention(E, heads, kv_heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {
        "multi_query": (GroupedQueryAttention(E, heads, 1).eval(), (x,)),
        "multi_head": (GroupedQueryAttention(E, heads, heads).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    _, state = layer.step(x)
    print(f"{layer.num_heads} query heads read keys {tuple(state.keys.shape)}")
    for kv_heads in (8, 4, 2, 1):
        kept = GroupedQueryAttention(64, 8, kv_heads).step(x)[1]
        print(
            f"{kv_heads} heads of keys and values: {sum(t[0, :, 0].numel() for t in kept)} numbers per token"
        )
