"""Forgetting attention (FoX): softmax in which each token says how much of all earlier ones is forgotten.

Paper: Zhixuan Lin, Evgenii Nikishin, Xu Owen He, Aaron Courville, "Forgetting Transformer: Softmax Attention
with a Forget Gate", ICLR 2025, arXiv 2503.02130.
Code: zhixuan-lin/forgetting-transformer 883f260, src/forgetting_transformer/model/forgetting_transformer/
modeling_forgetting_transformer.py; fla-org/flash-linear-attention 0.6.0, fla/ops/forgetting_attn/naive.py.
Differs: a gate may be zero, where a difference of running sums alone is nan; `starts` is new. The norms,
shifts and output gate of the "Pro" block are left out. Start values are those of `nn.Linear`; the released
code draws weights with deviation 0.02, and biases are zero.
SPDX-License-Identifier: MIT
"""

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ForgettingCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token, in their order.
        decay: (B, heads, S), the log gates of the tokens read after each of them, added up; float32 at least.
    """

    keys: Tensor
    values: Tensor
    decay: Tensor


class ForgettingAttention(nn.Module):
    """Causal multi-head self-attention whose scores sink by what was forgotten since a key was read.

    g(x) = softmax(Q K^T / sqrt(d) + D) per head over the tokens up to the query's own, where D_ij is the sum
    of log sigmoid(x_m W_F + b_F) over the tokens m behind j up to i; f(g, x) = concat(g V) W_O.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - starts: (B, T), True at the first token of each text, which forgets all before it; the first token
          of x need not be marked
        - state: a `ForgettingCache`, or None at the start
        - attention(x, starts): (B, heads, T, T)
        - log_gate(x, starts): (B, heads, T), in float32 at least
        - forward(x, starts): (B, T, E)
        - step(x, state, starts): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `x` is not (B, T, E), `starts`
            is not (B, T), or `state` is not one that fits this layer, `x` and its dtype.
        TypeError: `starts` is not boolean.

    Equal scores and gates of one half: each token counts half as much as the next one.

    >>> layer, (x,) = example()
    >>> for linear in (layer.q_proj, layer.gate_proj):
    ...     linear.weight.data[:] = 0
    >>> layer.gate_proj.bias.data[:] = 0
    >>> [round(15 * weight, 3) for weight in layer.attention(x)[0, 0, 3, :4].tolist()]
    [1.0, 2.0, 4.0, 8.0]

    A text that starts at the third token knows nothing of the two before it.

    >>> starts = torch.tensor([[False, False, True, False]]).expand(2, 4)
    >>> [round(3 * weight, 3) for weight in layer.attention(x[:, :4], starts)[0, 0, 3].tolist()]
    [0.0, 0.0, 1.0, 2.0]
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads = operator.index(num_heads)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.gate_proj = nn.Linear(embed_dim, num_heads)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def attention(self, x: Tensor, starts: Tensor | None = None) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
        return (scores + _decays(self.log_gate(x, starts)).to(q.dtype)).softmax(dim=-1)

    def log_gate(self, x: Tensor, starts: Tensor | None = None) -> Tensor:
        """Return the logarithm of what each token leaves of all before it: (B, T, E) -> (B, heads, T)."""
        logit: Tensor = self.gate_proj(x)
        gate = F.logsigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32))).mT  # (B, heads, T)
        return gate if starts is None else gate.masked_fill(_checked(starts, x)[:, None], -torch.inf)

    def forward(self, x: Tensor, starts: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self.step(x, None, starts)[0]

    def step(
        self, x: Tensor, state: ForgettingCache | None = None, starts: Tensor | None = None
    ) -> tuple[Tensor, ForgettingCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        gate = self.log_gate(x, starts)
        before = gate[..., :0]  # (B, heads, 0), of no earlier token
        if state is not None:
            _check(state, k)
            k, v, before = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2), state.decay
        decays = _decays(gate, before)
        heads = F.scaled_dot_product_attention(q, k, v, decays.to(q.dtype))  # (B, heads, T, d)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output, ForgettingCache(k, v, decays[:, :, -1] if x.shape[1] else before)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        return self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads


def _decays(gate: Tensor, before: Tensor | None = None) -> Tensor:
    """Return D of T new tokens, after those that have sunk by `before` (B, heads, S - T): (B, heads, T, S).

    Between two new tokens it is the difference of running sums, without gates of minus infinity, which would
    make it nan; a key before such a gate, and the query from it on, are of two texts.
    """
    closed = gate.isneginf()
    total, text = gate.masked_fill(closed, 0.0).cumsum(dim=2), closed.cumsum(dim=2)  # (B, heads, T)
    hidden = torch.ones(gate.shape[2], gate.shape[2], dtype=torch.bool, device=gate.device).triu(1)
    hidden = hidden | (text[..., None] != text[:, :, None])  # (B, heads, T, T)
    decays = (total[..., None] - total[:, :, None]).masked_fill(hidden, -torch.inf)
    if before is None:
        return decays
    return torch.cat([before[:, :, None] + gate.cumsum(dim=2)[..., None], decays], dim=3)


def _checked(starts: Tensor, x: Tensor) -> Tensor:
    """Return which tokens begin a text, if that is said for each of x: (B, T)."""
    if starts.dtype != torch.bool:
        raise TypeError(f"starts must be bool, True = a text begins, not {starts.dtype}")
    if starts.shape != x.shape[:2]:
        raise ValueError(f"starts {tuple(starts.shape)} must be (B, T) = {tuple(x.shape[:2])}")
    return starts


def _check(state: ForgettingCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, ForgettingCache):
        raise ValueError(f"state {type(state).__name__} must be a ForgettingCache")
    B, heads, _, d = k.shape
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    vectors = "(B, heads, S, d)", (B, heads, S, d), k.dtype
    numbers = "(B, heads, S)", (B, heads, S), torch.promote_types(k.dtype, torch.float32)
    wanted = (vectors, vectors, numbers)
    for name, kept, (form, shape, dtype) in zip(state._fields, state, wanted, strict=True):
        if kept.shape != shape or kept.dtype != dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be {form} = {shape} of {dtype}"
            )


def example(
    B: int = 2, T: int = 10, E: int = 64, heads: int = 4
) -> tuple[ForgettingAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return ForgettingAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its inputs."""
    layer, (x,) = example(**sizes)
    starts = torch.zeros(x.shape[:2], dtype=torch.bool)
    starts[:, x.shape[1] // 2] = True
    return {"starts": (layer, (x, starts))}


if __name__ == "__main__":
    layer, (x,) = example()
    for bias in (0.0, 2.0, 4.0):
        nn.init.constant_(layer.gate_proj.bias, bias)
        weights = layer.attention(x)[0, :, -1]
        print(f"bias {bias:.0f}: the oldest of {x.shape[1]} tokens has weight {weights[:, 0].mean():.4f}")
