"""Multi-head latent attention: all heads make their keys and values of one short vector per token.

Paper: DeepSeek-AI, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model",
arXiv 2024, arXiv 2405.04434 (section 2.1).
Code: deepseek-ai/DeepSeek-V3 9b4e978, inference/model.py (MLA); huggingface/transformers 5.23.0,
models/deepseek_v3/modeling_deepseek_v3.py (DeepseekV3Attention).
Differs: positions are not stretched (YaRN), which in the released code changes the scale as well. Keys and
values have a matrix each; the released code stacks them. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LatentCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        entries: (B, S, r + p), of each token its latent vector and its rotated key, which all heads share.
    """

    entries: Tensor


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Turn each pair of neighbours in x (..., T, p) by its token's position (T) times a speed of its own.

    >>> x = torch.randn(3, 6, dtype=torch.float64)
    >>> early, late = rotate(x, torch.arange(3), 1e4), rotate(x, torch.arange(7, 10), 1e4)
    >>> torch.allclose(early @ early.mT, late @ late.mT)  # only distances count
    True
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    speed = base ** (-torch.arange(0, x.shape[-1], 2, device=x.device, dtype=dtype) / x.shape[-1])  # (p / 2)
    angle = position.to(dtype)[:, None] * speed  # (T, p / 2)
    cos, sin = angle.cos(), angle.sin()
    even, odd = x.unflatten(-1, (-1, 2)).to(dtype).unbind(-1)  # (..., T, p / 2)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


class LatentAttention(nn.Module):
    """Causal self-attention whose keys and values are linear in a latent vector c of r numbers per token.

    Head h has keys [W_UK,h c, R k] and values W_UV,h c; R k are p features that all heads share, rotated by
    position. g(x) = softmax(Q K^T / sqrt(n + p)) per head; f(g, x) = concat(g V) W_O. Applied to queries and
    results instead, W_UK and W_UV are "absorbed": no key and no value is ever made.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads.
        latent_dim: width r of the latents.
        head_dim: features n of a head's keys that come from the latent.
        rotated_dim: features p of keys that are rotated; even.
        value_dim: features v of a head's values.
        query_dim: width r_q of the latents of queries; none, and queries made of x itself, if not given.
        base: pair i of the p features turns by base^(-2i / p) per token.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `LatentCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `rotated_dim` is odd, `base` is not above 0 and finite, `x` is not
            (B, T, E), or `state` is not one that fits this layer, `x` and its dtype.

    DeepSeek-V3 keeps 576 numbers of each token, of which 128 heads make 40,960:

    >>> with torch.device("meta"):
    ...     layer = LatentAttention(7168, 128, 512, 128, 64, 128, query_dim=1536)
    ...     _, state = layer.step(torch.empty(1, 1, 7168))
    >>> state.entries.shape[2], sum(p.numel() for p in layer.parameters())
    (576, 187107328)

    For one new token at 4096 it pays to absorb, for 4096 at once it does not:

    >>> layer.absorbing_pays(1, 4096), layer.absorbing_pays(4096, 4096)
    (True, False)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        latent_dim: int,
        head_dim: int,
        rotated_dim: int,
        value_dim: int,
        query_dim: int | None = None,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        if min(embed_dim, num_heads, latent_dim, head_dim, value_dim) < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads}, latent_dim {latent_dim}, head_dim {head_dim} "
                f"and value_dim {value_dim} must be at least 1"
            )
        if rotated_dim < 2 or rotated_dim % 2:
            raise ValueError(f"rotated_dim {rotated_dim} must be even and at least 2")
        if query_dim is not None and query_dim < 1:
            raise ValueError(f"query_dim {query_dim} must be at least 1")
        if not 0 < base < math.inf:
            raise ValueError(f"base {base} must be above 0 and finite")
        self.num_heads, self.base = operator.index(num_heads), base
        self.latent_dim, self.rotated_dim = operator.index(latent_dim), operator.index(rotated_dim)
        self.head_dim, self.value_dim = operator.index(head_dim), operator.index(value_dim)
        self.q_down: nn.Module = nn.Identity()
        if query_dim is not None:
            self.q_down = nn.Sequential(
                nn.Linear(embed_dim, query_dim, bias=False), nn.RMSNorm(query_dim, eps=1e-6)
            )
        self.q_up = nn.Linear(query_dim or embed_dim, num_heads * (head_dim + rotated_dim), bias=False)
        self.kv_down = nn.Linear(embed_dim, latent_dim + rotated_dim, bias=False)
        self.kv_norm = nn.RMSNorm(latent_dim, eps=1e-6)
        self.k_up = nn.Linear(latent_dim, num_heads * head_dim, bias=False)
        self.v_up = nn.Linear(latent_dim, num_heads * value_dim, bias=False)
        self.out_proj = nn.Linear(num_heads * value_dim, embed_dim, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, entries = self._project(x, start=0)
        k, _ = self._expand(entries)
        return self._weigh(q, k, _earlier(x.shape[1], x.shape[1], x.device))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once, latents expanded: (B, T, E) -> (B, T, E)."""
        q, entries = self._project(x, start=0)
        return self._merge(self.read_expanded(q, entries))

    def step(self, x: Tensor, state: LatentCache | None = None) -> tuple[Tensor, LatentCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, entries = self._project(x, start=0 if state is None else _seen(state))
        if state is not None:
            entries = torch.cat([_fitting(state, entries), entries], dim=1)  # (B, S, r + p)
        pays = self.absorbing_pays(x.shape[1], entries.shape[1])
        read = self.read_absorbed if pays else self.read_expanded
        return self._merge(read(q, entries)), LatentCache(entries)

    def absorbing_pays(self, T: int, S: int) -> bool:
        """Whether T queries of S latents take fewer multiply-adds absorbed than expanded, per head."""
        r, n, p, v = self.latent_dim, self.head_dim, self.rotated_dim, self.value_dim
        return T * r * (n + v) + T * S * (r + p + r) < S * r * (n + v) + T * S * (n + p + v)

    def read_expanded(self, q: Tensor, entries: Tensor) -> Tensor:
        """Return what queries (B, heads, T, n + p) read, out of keys and values: (B, heads, T, v)."""
        k, v = self._expand(entries)
        return F.scaled_dot_product_attention(q, k, v, _earlier(q.shape[2], k.shape[2], q.device))

    def read_absorbed(self, q: Tensor, entries: Tensor) -> Tensor:
        """Return the same out of the latents: each is key and value of all heads at once."""
        T, r = q.shape[2], self.latent_dim
        w_uk = self.k_up.weight.unflatten(0, (self.num_heads, -1))  # (heads, n, r)
        w_uv = self.v_up.weight.unflatten(0, (self.num_heads, -1))  # (heads, v, r)
        content, rotated = q.split([self.head_dim, self.rotated_dim], dim=3)
        q = torch.cat([torch.einsum("bhtn,hnr->bhtr", content, w_uk), rotated], dim=3)  # (B, heads, T, r + p)
        earlier = _earlier(T, entries.shape[1], q.device).repeat(self.num_heads, 1)  # (heads T, S)
        weights = self._weigh(q.flatten(1, 2), entries, earlier)  # (B, heads T, S)
        latents = (weights @ entries[..., :r]).unflatten(1, (self.num_heads, T))  # (B, heads, T, r)
        return torch.einsum("bhtr,hvr->bhtv", latents, w_uv)

    def _weigh(self, q: Tensor, k: Tensor, earlier: Tensor) -> Tensor:
        scores: Tensor = (q * (self.head_dim + self.rotated_dim) ** -0.5) @ k.mT
        return scores.masked_fill(~earlier, -torch.inf).softmax(dim=-1)

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return queries (B, heads, T, n + p) and entries (B, T, r + p) of tokens from `start` on."""
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        position = torch.arange(start, start + x.shape[1], device=x.device)
        content, rotated = self._heads(self.q_up(self.q_down(x))).split(
            [self.head_dim, self.rotated_dim], dim=3
        )
        q = torch.cat([content, rotate(rotated, position, self.base)], dim=3)
        latent, key = self.kv_down(x).split([self.latent_dim, self.rotated_dim], dim=2)
        return q, torch.cat([self.kv_norm(latent), rotate(key, position, self.base)], dim=2)

    def _expand(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys (B, heads, S, n + p) and values (B, heads, S, v)."""
        latent, key = entries.split([self.latent_dim, self.rotated_dim], dim=2)
        content = self._heads(self.k_up(latent))
        shared = key[:, None].expand(-1, self.num_heads, -1, -1)
        return torch.cat([content, shared], dim=3), self._heads(self.v_up(latent))

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, width)
        return heads

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _seen(state: LatentCache) -> int:
    """Return how many tokens a state has seen; refuse what is none."""
    if not isinstance(state, LatentCache) or state.entries.dim() != 3:
        raise ValueError(f"state {type(state).__name__} must be a LatentCache of entries (B, S, r + p)")
    return state.entries.shape[1]


def _fitting(state: LatentCache, new: Tensor) -> Tensor:
    """Return the entries of a state that new ones (B, T, r + p) can follow."""
    kept, (B, _, width) = state.entries, new.shape
    if (kept.shape[0], kept.shape[2], kept.dtype) != (B, width, new.dtype):
        raise ValueError(
            f"state entries {tuple(kept.shape)} of {kept.dtype} must be (B, S, r + p) = ({B}, S, {width}) of "
            f"{new.dtype}"
        )
    return kept


def example(
    B: int = 2,
    T: int = 10,
    E: int = 36,
    heads: int = 3,
    r: int = 20,
    n: int = 5,
    p: int = 8,
    v: int = 7,
    r_q: int = 11,
) -> tuple[LatentAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return LatentAttention(E, heads, r, n, p, v, r_q).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    widths = (layer.num_heads, layer.latent_dim, layer.head_dim, layer.rotated_dim, layer.value_dim)
    return {
        "plain_queries": (LatentAttention(x.shape[2], *widths).eval(), (x,)),
        "slow": (LatentAttention(x.shape[2], *widths, base=1e6).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    y, state = layer.step(x[:, :9])
    print(f"{layer.num_heads} heads read {tuple(state.entries.shape)}")
    q, entries = layer._project(x, start=0)
    difference = (layer.read_absorbed(q, entries) - layer.read_expanded(q, entries)).abs().max()
    print(f"absorbed and expanded differ by {difference:.0e}")
