"""Rotary positions (RoPE): queries and keys are turned by angles that grow with their position.

Paper: Jianlin Su, Yu Lu, Shengfeng Pan, Ahmed Murtadha, Bo Wen, Yunfeng Liu, "RoFormer: Enhanced Transformer
with Rotary Position Embedding", arXiv 2021, arXiv 2104.09864.
Code: huggingface/transformers 5.23.0, modeling_llama.py ("half"), modeling_cohere.py ("interleaved") and
modeling_gpt_neox.py (a part of the features) below models/.
Differs: pairs are (i, i + d/2) unless `mode` says otherwise; the paper's are (2i, 2i + 1). Cosines and sines
are computed for the tokens at hand, in float32 at least, and not kept in a table. As in Llama there are no
biases. Start values are those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("half", "interleaved")


def angles(
    position: Tensor, width: int, base: float = 10_000.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return position * base^(-2i / width), the angle of each pair i: (...) -> (..., width / 2).

    The first pair turns by one radian from token to token, each further one more slowly.

    >>> print(angles(torch.tensor([0, 1, 2]), 4, base=100.0))
    tensor([[0.0000, 0.0000],
            [1.0000, 0.1000],
            [2.0000, 0.2000]])
    """
    pair = torch.arange(0, width, 2, dtype=dtype, device=position.device)
    return position[..., None] * base ** (-pair / width)


def _turn(pair: Tensor, cos: Tensor, sin: Tensor, axis: int) -> Tensor:
    """Return (a cos - b sin, b cos + a sin) of the pair (a, b) along an axis."""
    turned = pair * cos.unsqueeze(axis)
    turned.select(axis, 0).addcmul_(pair.select(axis, 1), sin, value=-1)
    turned.select(axis, 1).addcmul_(pair.select(axis, 0), sin)
    return turned


class _Turn(torch.autograd.Function):
    """The same with its gradient, which is turned back: nothing but cosines and sines is kept for it."""

    generate_vmap_rule = True
    forward = staticmethod(_turn)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
        _, cos, sin, ctx.axis = inputs
        ctx.save_for_backward(cos, sin)
        ctx.save_for_forward(cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        back: Tensor = _Turn.apply(gradient, cos, -sin, ctx.axis)  # type: ignore[no-untyped-call]
        return back, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        cos, sin = ctx.saved_tensors
        return _turn(tangent, cos, sin, ctx.axis)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, mode: str = "half") -> Tensor:
    """Turn the first pairs of features, as many as there are cosines and sines, and keep the rest.

    Args:
        x: (..., T, d).
        cos, sin: (T, r / 2) with r up to d, or with more dimensions that broadcast to those of x.
        mode: which features form pair i: "half" (i, i + r/2), "interleaved" (2i, 2i + 1).

    Raises:
        ValueError: `mode` is unknown, or there are more pairs than features for them.

    A quarter turn of one pair:

    >>> x = torch.tensor([[1.0, 2.0, 3.0]])
    >>> rotate(x, torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor([[-2.,  1.,  3.]])
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
    pairs = cos.shape[-1]
    if 2 * pairs > x.shape[-1]:
        raise ValueError(
            f"x {tuple(x.shape)} and cos {tuple(cos.shape)} must be (..., T, d) and (T, pairs) with two of "
            "the d features for each pair"
        )
    shape, axis = ((2, pairs), -2) if mode == "half" else ((pairs, 2), -1)
    pair = x[..., : 2 * pairs].unflatten(-1, shape)  # (..., T, 2, r/2) or (..., T, r/2, 2)
    turn = _turn if torch.compiler.is_compiling() else _Turn.apply  # a compiler derives it by itself
    turned = turn(pair, cos, sin, axis).flatten(-2)  # (..., T, r)
    return torch.cat([turned, x[..., 2 * pairs :]], dim=-1) if 2 * pairs < x.shape[-1] else turned


def to_half(width: int) -> Tensor:
    """Return the order of features with which "half" does what "interleaved" does in the given one.

    `rotate(x[..., p], cos, sin, "half") == rotate(x, cos, sin, "interleaved")[..., p]`. So the rows of the
    queries' and keys' matrices, taken in this order *within each head*, lead from one mode to the other, and
    `p.argsort()` leads back.

    >>> to_half(8)
    tensor([0, 2, 4, 6, 1, 3, 5, 7])
    """
    return torch.arange(width).view(-1, 2).T.flatten()


class RotaryCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token, in their order; the keys are turned.
    """

    keys: Tensor
    values: Tensor


class RotaryAttention(nn.Module):
    """Causal multi-head self-attention whose scores see how far apart two tokens are, not where.

    g(x) = softmax(R_m Q_m . R_n K_n / sqrt(d)) per head over the tokens n up to the query's own, m;
    f(g, x) = concat(g V) W_O. R_m turns pair i of the features by m base^(-2i / r); values are not turned.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        rotary_dim: number r of features of each head that are turned, the first ones; all if not given.
        base: the larger, the more slowly the last pairs turn.
        mode: "half" or "interleaved", see `rotate`; it must be that of the weights.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - state: a `RotaryCache`, or None at the start
        - attention(x): (B, heads, T, T)
        - forward(x): (B, T, E)
        - step(x, state): (B, T, E) and the new state; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `rotary_dim` is odd or above
            d, `base` is not above 0 and finite, `mode` is unknown, `x` is not (B, T, E), or `state` is not
            one that fits this layer, `x` and its dtype.

    Four equal tokens differ by their places alone. Two and one back, the ratio of weights is that of one row
    further down, and not one, as it would be without positions:

    >>> layer, (x,) = example()
    >>> weights = layer.attention(x[:1, :1].expand(1, 4, -1))[0, 0]
    >>> [f"{weights[m, m - 2] / weights[m, m - 1]:.4f}" for m in (2, 3)]
    ['0.9838', '0.9838']
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        rotary_dim: int | None = None,
        base: float = 10_000.0,
        mode: str = "half",
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        head_dim = embed_dim // num_heads
        rotary_dim = head_dim if rotary_dim is None else rotary_dim
        if rotary_dim < 2 or rotary_dim % 2:
            raise ValueError(f"rotary_dim {rotary_dim} must be even and at least 2")
        if rotary_dim > head_dim:
            raise ValueError(f"rotary_dim {rotary_dim} must be at most head_dim {head_dim}")
        if not 0 < base < float("inf"):
            raise ValueError(f"base {base} must be above 0 and finite")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.num_heads, self.rotary_dim = operator.index(num_heads), operator.index(rotary_dim)
        self.base, self.mode = float(base), mode
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x, seen=0)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, heads, T, T)
        earlier = _earlier(x.shape[1], x.shape[1], x.device)
        return scores.masked_fill(~earlier, -torch.inf).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x, seen=0)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x: Tensor, state: RotaryCache | None = None) -> tuple[Tensor, RotaryCache]:
        """Read the next tokens; return what `forward` would give them, and the new state.

        The keys that are kept stay as they were turned. The new ones are turned on from there.
        """
        q, k, v = self._project(x, seen=0 if state is None else _seen(state))
        if state is not None:
            _check(state, k)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        earlier = _earlier(x.shape[1], k.shape[2], x.device)
        return self._merge(F.scaled_dot_product_attention(q, k, v, earlier)), RotaryCache(k, v)

    def _project(self, x: Tensor, seen: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q and K, turned to the positions from `seen` on, and V."""
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        position = torch.arange(seen, seen + x.shape[1], device=x.device)
        # Float32 at least: bfloat16 knows no position 257
        angle = angles(position, self.rotary_dim, self.base, torch.promote_types(q.dtype, torch.float32))
        cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)  # (T, r/2)
        return rotate(q, cos, sin, self.mode), rotate(k, cos, sin, self.mode), v

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _seen(state: RotaryCache) -> int:
    """Return how many tokens a state has seen; refuse what is none."""
    if not isinstance(state, RotaryCache) or state.keys.dim() != 4:
        raise ValueError(f"state {type(state).__name__} must be a RotaryCache of keys (B, heads, S, d)")
    return state.keys.shape[2]


def _check(state: RotaryCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    B, heads, _, d = k.shape
    S = state.keys.shape[2]
    for name, kept in state._asdict().items():
        if kept.shape != (B, heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {k.dtype}"
            )


def example(B: int = 2, T: int = 10, E: int = 64, heads: int = 4) -> tuple[RotaryAttention, tuple[Tensor]]:
    """Return a seeded layer and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    return RotaryAttention(E, heads).eval(), (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    part = max(2, layer.rotary_dim // 8 * 4)
    return {
        "interleaved": (RotaryAttention(E, heads, mode="interleaved").eval(), (x,)),
        "partial": (RotaryAttention(E, heads, rotary_dim=part).eval(), (x,)),
    }


if __name__ == "__main__":
    layer, (x,) = example()
    print(f"tokens {tuple(x.shape)} -> {tuple(layer(x).shape)}")
    q, k = torch.randn(2, 1, 64)
    for m, n in ((5, 2), (105, 102), (5, 3)):
        angle = angles(torch.tensor([[m], [n]]), 64)  # (2, 1, 32)
        one, other = rotate(torch.stack([q, k]), angle.cos(), angle.sin())
        print(f"positions {m} and {n}: score {(one * other).sum():.4f}")
