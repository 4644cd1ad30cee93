"""Gated output: before heads are merged, each token turns down what it has read, by a gate made from itself.

Paper: Zihan Qiu, Zekun Wang, Bo Zheng, Zeyu Huang, Kaiyue Wen, Songlin Yang, Rui Men, Le Yu, Fei Huang,
Suozhi Huang, Dayiheng Liu, Jingren Zhou, Junyang Lin, "Gated Attention for Large Language Models:
Non-linearity, Sparsity, and Attention-Sink-Free", NeurIPS 2025, arXiv 2505.06708.
Code: qiuzh20/gated_attention 49645df, modeling_qwen3.py; huggingface/transformers 5.23.0,
models/qwen3_next/modeling_qwen3_next.py.
Differs: the gate has a matrix of its own, which the released codes keep among those of the queries. Queries
and keys are neither normalised nor rotated. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("element", "head")


class GatedCache(NamedTuple):
    """What a layer keeps of the tokens that it has read; gates are used once.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token, in their order.
    """

    keys: Tensor
    values: Tensor


class GatedAttention(nn.Module):
    """Causal multi-head self-attention with a gate on what each token has read.

    g(x) = softmax(Q K^T / sqrt(d)) per head over the tokens up to the query's own;
    f(g, x) = (concat(g V) * sigmoid(x W_G)) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        mode: "element", a gate for each feature of each head, or "head", one for each head.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `GatedCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - gate(x): (B, T, heads, d), with d = 1 in mode "head"
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `mode` is none of `MODES`, `x`
            is not (B, T, E), or `state` is not one that fits this layer, `x` and its dtype.

    A gate of zeros is half open, and so is a new one nearly:

    >>> layer, (x,) = example()
    >>> round(layer.gate(x).mean().item(), 2)
    0.5

    A token that closes its gates gets nothing; the others do not notice.

    >>> layer.gate_proj.weight.data[:] = 0
    >>> layer.gate_proj.weight.data[:, 0] = -1
    >>> x[0, 4, 0] = 100
    >>> layer(x)[0].norm(dim=1).gt(1e-6).tolist()[:6]
    [True, True, True, True, False, True]
    """

    def __init__(self, embed_dim: int, num_heads: int, mode: str = "element") -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.num_heads, self.mode = operator.index(num_heads), mode
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.gate_proj = nn.Linear(embed_dim, embed_dim if mode == "element" else num_heads, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
        return scores.masked_fill(~_earlier(x.shape[1], x.shape[1], x.device), -torch.inf).softmax(dim=-1)

    def gate(self, x: Tensor) -> Tensor:
        """Return how much each token lets through: (B, T, E) -> (B, T, heads, d or 1)."""
        gate: Tensor = self.gate_proj(x).unflatten(2, (self.num_heads, -1))
        return gate.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True), x)

    def step(self, x: Tensor, state: GatedCache | None = None) -> tuple[Tensor, GatedCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        if state is not None:
            _check(state, k)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        earlier = _earlier(x.shape[1], k.shape[2], x.device)
        return self._merge(F.scaled_dot_product_attention(q, k, v, earlier), x), GatedCache(k, v)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        return self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads

    def _merge(self, heads: Tensor, x: Tensor) -> Tensor:
        gated = heads.transpose(1, 2) * self.gate(x)  # (B, T, heads, d)
        output: Tensor = self.out_proj(gated.flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _check(state: GatedCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, GatedCache):
        raise ValueError(f"state {type(state).__name__} must be a GatedCache")
    B, heads, _, d = k.shape
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    for name, kept in state._asdict().items():
        if kept.shape != (B, heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {k.dtype}"
            )


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[GatedAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return GatedAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    return {"head": (GatedAttention(x.shape[2], layer.num_heads, "head").eval(), (x,))}


if __name__ == "__main__":
    layer, (x,) = example()
    for scale in (1, 10):
        gate = layer.gate(scale * x)
        print(
            f"tokens times {scale}: gates from {gate.min():.2f} to {gate.max():.2f}, mean {gate.mean():.2f}"
        )
