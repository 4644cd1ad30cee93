"""Bounded scores: queries and keys of a fixed length, or a soft cap, so that no score can grow without end.

Paper: Alex Henry, Prudhvi Raj Dachapally, Shubham Pawar, Yuxuan Chen, "Query-Key Normalization for
Transformers", Findings of EMNLP 2020, arXiv 2010.04245 (cosine).
Soft cap: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", arXiv 2024,
arXiv 2408.00118.
Code: huggingface/transformers 5.23.0, models/qwen3/modeling_qwen3.py (one norm per head),
models/olmo2/modeling_olmo2.py (one over all heads), models/gemma2/modeling_gemma2.py (soft cap).
Differs: tokens have no positions; the released codes rotate queries and keys after the norm. The factor of
the cosine starts at 10, and not at a number computed from the length of the texts. Gemma stores the weights
of a norm minus one. All else starts as `nn.Linear` and `nn.RMSNorm` do.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("head_norm", "full_norm", "cosine", "soft_cap")


class BoundedCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token, in their order; keys as the scores need them.
    """

    keys: Tensor
    values: Tensor


class BoundedAttention(nn.Module):
    """Causal multi-head self-attention whose scores have a bound.

    g(x) = softmax(S) per head over the tokens up to the query's own; f(g, x) = concat(g V) W_O. The scores S
    are q · k / sqrt(d) after a root mean square norm of q and k, or `factor` times the cosine of q and k, or
    `cap` tanh(q · k / sqrt(d) / cap).

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        mode: "head_norm", a norm over each head, whose weights all heads share; "full_norm", one over all
            heads together; "cosine", with one learned `factor`; "soft_cap".
        cap: what no score exceeds in mode "soft_cap".
        eps: added to the mean square in the norms.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `BoundedCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    A soft cap is no part of torch's fused kernel, so this mode stores its weights. In the others second
    derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `mode` is none of `MODES`,
            `cap` or `eps` is not above 0 and finite, `x` is not (B, T, E), or `state` is not one that fits
            this layer, `x` and its dtype.

    Queries and keys a hundred times as long leave the weights as they were:

    >>> layer, (x,) = example()
    >>> before = layer.attention(x)
    >>> _ = layer.q_proj.weight.data.mul_(100), layer.k_proj.weight.data.mul_(100)
    >>> torch.allclose(layer.attention(x), before, atol=1e-4)
    True

    With a cap of 1 no weight is more than exp(2) times another of its row, whatever the scores are:

    >>> capped = BoundedAttention(64, 4, "soft_cap", cap=1.0)
    >>> weights = capped.attention(1000 * x)[:, :, -1]  # (B, heads, T), of the last token
    >>> round((weights.amax(dim=-1) / weights.amin(dim=-1)).max().item(), 3)
    7.389
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mode: str = "head_norm", cap: float = 50.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        for name, number in (("cap", cap), ("eps", eps)):
            if not 0 < number < math.inf:
                raise ValueError(f"{name} {number} must be above 0 and finite")
        self.num_heads, self.mode, self.cap = operator.index(num_heads), mode, cap
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        if mode in ("head_norm", "full_norm"):
            width = embed_dim // num_heads if mode == "head_norm" else embed_dim
            self.q_norm, self.k_norm = nn.RMSNorm(width, eps), nn.RMSNorm(width, eps)
        elif mode == "cosine":
            self.factor = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the factor of the cosine at 10."""
        if self.mode == "cosine":
            nn.init.constant_(self.factor, 10)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x)
        return self._weights(q, k)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        return self._merge(*self._project(x))

    def step(self, x: Tensor, state: BoundedCache | None = None) -> tuple[Tensor, BoundedCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x)
        if state is not None:
            _check(state, k)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        return self._merge(q, k, v), BoundedCache(k, v)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.mode == "full_norm":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)) for part in (q, k, v))  # (B, T, heads, d)
        if self.mode == "head_norm":
            q, k = self.q_norm(q), self.k_norm(k)
        elif self.mode == "cosine":
            q, k = _direction(q) * self.factor * q.shape[-1] ** 0.5, _direction(k)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, d)

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Scale, cap, mask, softmax, in this order: (B, heads, T, S)."""
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
        if self.mode == "soft_cap":
            scores = self.cap * torch.tanh(scores / self.cap)
        return scores.masked_fill(~_earlier(q.shape[2], k.shape[2], q.device), -torch.inf).softmax(dim=-1)

    def _merge(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Read the values, put the heads side by side: (B, T, E)."""
        T, S = q.shape[2], k.shape[2]
        if self.mode == "soft_cap":
            heads = self._weights(q, k) @ v
        elif T == S:
            heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, _earlier(T, S, q.device))
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _direction(x: Tensor) -> Tensor:
    """Scale to length one; zeros stay zeros, in half precision as well, where `F.normalize` gives NaN."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return F.normalize(x.to(exact), dim=-1).to(x.dtype)


def _check(state: BoundedCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    if not isinstance(state, BoundedCache):
        raise ValueError(f"state {type(state).__name__} must be a BoundedCache")
    B, heads, _, d = k.shape
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    for name, kept in state._asdict().items():
        if kept.shape != (B, heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {k.dtype}"
            )


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[BoundedAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return BoundedAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {mode: (BoundedAttention(E, heads, mode).eval(), (x,)) for mode in MODES[1:]}


if __name__ == "__main__":
    _, (x,) = example()
    for mode in MODES:
        layer = BoundedAttention(64, 4, mode)
        largest = [layer.attention(scale * x)[:, :, -1].amax().item() for scale in (1, 10, 100)]
        print(f"{mode:9}: largest weight for tokens times 1, 10, 100: {[round(w, 2) for w in largest]}")
