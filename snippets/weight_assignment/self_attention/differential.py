"""Differential attention: two softmax maps are subtracted, so that what both attend to cancels.

Paper: Tianzhu Ye, Li Dong, Yuqing Xia, Yutao Sun, Yi Zhu, Gao Huang, Furu Wei, "Differential Transformer",
ICLR 2025, arXiv 2410.05258 (version 1).
Version 2: Tianzhu Ye, Li Dong, Yutao Sun, Furu Wei, "Differential Transformer V2", 2026, an article on the
web, with its code.
Code: microsoft/unilm 768a3c8, Diff-Transformer/multihead_diffattn.py, and huggingface/transformers 5.23.0,
models/diffllama/modeling_diffllama.py (both version 1).
Differs: queries and keys are not rotated. Each pair of maps has keys and values of its own. Start values are
those of the code: the vectors of lambda normal with deviation 0.1, all else as in `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("v1", "v2")


class DifferentialCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys: (B, heads of keys, S, d), one slot for each token, in their order.
        values: (B, heads, S, width), likewise.
    """

    keys: Tensor
    values: Tensor


class DifferentialAttention(nn.Module):
    """Causal self-attention whose weights are the difference of two softmax maps, in pairs of query heads.

    g(x) = A_1 - lambda A_2 for each pair, with A = softmax(Q K^T / sqrt(d)) over the tokens up to the query's
    own; it is signed, and its rows sum to 1 - lambda.

    "v1": two heads of keys and one of values, twice as wide, for each pair; one lambda =
    exp(q_1 · k_1) - exp(q_2 · k_2) + init for the layer, from four learned vectors;
    f(g, x) = concat((1 - init) RMSNorm(g V)) W_O. "v2": one head of keys and of values for each pair;
    lambda = sigmoid(x W) for each token that reads and each pair; f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of pairs, half of that of query heads; divides E, in mode "v1" its double does.
        mode: "v1" or "v2".
        layer: which layer of a model it is, counted from 1; init = 0.8 - 0.6 exp(-0.3 (layer - 1)) in "v1".

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `DifferentialCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, the heads do not divide `embed_dim`, `mode` is none of `MODES`, `x` is
            not (B, T, E), or `state` is not one that fits this layer, `x` and its dtype.

    Rows sum to 1 - lambda, and some weights are negative:

    >>> layer, (x,) = example()
    >>> weights = layer.attention(x)
    >>> torch.allclose(weights.sum(dim=-1), 1 - layer.difference(x)[..., 0])
    True
    >>> bool((weights < 0).any())
    True

    The layers of the paper start with these:

    >>> [round(DifferentialAttention(8, 1, layer=layer).init, 3) for layer in (1, 2, 3, 4)]
    [0.2, 0.356, 0.471, 0.556]
    """

    def __init__(self, embed_dim: int, num_heads: int, mode: str = "v1", layer: int = 1) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or layer < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and layer {layer} must be at least 1"
            )
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        heads = 2 * num_heads if mode == "v1" else num_heads  # side by side as wide as a token
        if embed_dim % heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by heads {heads}")
        self.num_heads, self.mode = operator.index(num_heads), mode
        self.head_dim = embed_dim // heads
        self.init = 0.8 - 0.6 * math.exp(-0.3 * (operator.index(layer) - 1))
        self.q_proj = nn.Linear(embed_dim, 2 * num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        if mode == "v1":
            self.lambda_q, self.lambda_k = (nn.Parameter(torch.empty(2, self.head_dim)) for _ in range(2))
            self.norm = nn.RMSNorm(2 * self.head_dim, eps=1e-5)
        else:
            self.lambda_proj = nn.Linear(embed_dim, num_heads, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the vectors of lambda at random, with deviation 0.1."""
        if self.mode == "v1":
            nn.init.normal_(self.lambda_q, std=0.1)
            nn.init.normal_(self.lambda_k, std=0.1)

    def difference(self, x: Tensor) -> Tensor:
        """Return lambda, which share of the second map is subtracted: (B, T, E) -> (B, heads, T, 1)."""
        if self.mode == "v2":
            share: Tensor = self.lambda_proj(x).sigmoid()
            return share.mT[..., None]
        first, second = (self.lambda_q * self.lambda_k).sum(dim=1).exp()
        share = first - second + self.init
        return share.expand(x.shape[0], self.num_heads, x.shape[1], 1)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the signed weights of each pair: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores: Tensor = (q * self.head_dim**-0.5) @ k.mT
        hidden = ~_earlier(x.shape[1], x.shape[1], x.device)
        maps = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)  # (B, 2 heads, T, T)
        return maps[:, ::2] - self.difference(x) * maps[:, 1::2]

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x)
        return self._merge(self._read(q, k, v), x)

    def step(self, x: Tensor, state: DifferentialCache | None = None) -> tuple[Tensor, DifferentialCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        if state is not None:
            _check(state, k, v)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        return self._merge(self._read(q, k, v), x), DifferentialCache(k, v)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q = self.q_proj(x).unflatten(2, (2 * self.num_heads, -1)).transpose(1, 2)  # (B, 2 heads, T, d)
        k = self.k_proj(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)  # (B, heads or twice, T, d)
        v = self.v_proj(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d or twice)
        return q, k, v

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each map reads: (B, 2 heads, T, width)."""
        T, S, heads = q.shape[2], k.shape[2], q.shape[1]
        k, v = (kept.repeat_interleave(heads // kept.shape[1], dim=1) for kept in (k, v))
        visible = None if T == S else _earlier(T, S, q.device)
        # the fused kernel wants values as wide as keys, so wide ones are read in two halves
        halves = [
            F.scaled_dot_product_attention(q, k, half, visible, is_causal=visible is None)
            for half in v.split(self.head_dim, dim=-1)
        ]
        return torch.cat(halves, dim=-1)

    def _merge(self, read: Tensor, x: Tensor) -> Tensor:
        heads = read[:, ::2] - self.difference(x) * read[:, 1::2]  # (B, heads, T, width)
        if self.mode == "v1":
            heads = (1 - self.init) * self.norm(heads)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _check(state: DifferentialCache, k: Tensor, v: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys and values (B, heads, T, width)."""
    if not isinstance(state, DifferentialCache):
        raise ValueError(f"state {type(state).__name__} must be a DifferentialCache")
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    for name, kept, new in (("keys", state.keys, k), ("values", state.values, v)):
        wanted = (*new.shape[:2], S, new.shape[3])
        if kept.shape != wanted or kept.dtype != new.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, width) = "
                f"{wanted} of {new.dtype}"
            )


def example(
    B: int = 2, T: int = 10, E: int = 64, heads: int = 4
) -> tuple[DifferentialAttention, tuple[Tensor]]:
    """Return a seeded layer, the fourth of a model, and its input: B sequences of T tokens."""
    torch.manual_seed(0)
    return DifferentialAttention(E, heads, layer=4).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    return {"v2": (DifferentialAttention(x.shape[2], layer.num_heads, "v2").eval(), (x,))}


if __name__ == "__main__":
    _, (x,) = example()
    for mode in MODES:
        weights = DifferentialAttention(64, 4, mode).attention(x)[:, :, -1]  # of the last token
        total = weights.sum(dim=-1).mean()
        print(f"{mode}: weights from {weights.min():.2f} to {weights.max():.2f}, sum {total:.2f}")
