"""Attention without positions: all that a token knows of order is which tokens came before it.

Paper: Amirhossein Kazemnejad, Inkit Padhi, Karthikeyan Natesan Ramamurthy, Payel Das, Siva Reddy, "The Impact
of Positional Encoding on Length Generalization in Transformers", NeurIPS 2023, arXiv 2305.19466; Adi Haviv,
Ori Ram, Ofir Press, Peter Izsak, Omer Levy, "Transformer Language Models without Positional Encodings Still
Learn Positional Information", Findings of EMNLP 2022, arXiv 2203.16634.
Scores that grow with the length: Ken M. Nakanishi, "Scalable-Softmax Is Superior for Attention", arXiv 2025,
arXiv 2501.19399.
Code: huggingface/transformers 5.23.0, models/smollm3/modeling_smollm3.py ("constant"),
models/llama4/modeling_llama4.py ("steps"), models/inkling/modeling_inkling.py ("log") and
models/mistral_large4/modeling_mistral_large4.py ("learned").
Differs: one growth of the scores for all layers, which stand alone; in the released models layers with and
without positions alternate. As many heads of keys as of queries, no biases. Slopes start at 0 and shifts at
1, as in Mistral Large 4; all else starts as in `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("constant", "steps", "log", "learned")


class NoPositionCache(NamedTuple):
    """What a layer keeps of the tokens that it has read.

    Attributes:
        keys, values: (B, heads, S, d), one slot for each token, in any order.
    """

    keys: Tensor
    values: Tensor


class NoPositionAttention(nn.Module):
    """Multi-head self-attention that gets no positions, with scores that may grow with the length.

    g(x) = softmax(growth(n) Q K^T / sqrt(d)) per head over the n tokens up to the query's own, or over all;
    f(g, x) = concat(g V) W_O. The growth is

    "constant": 1; "steps": 1 + alpha ln(1 + floor(n / length)); "log": 1 + alpha ln(max(1, n / length));
    "learned": slope ln n + shift, two numbers for each head.

    Args:
        embed_dim: width E of the tokens.
        num_heads: number of heads; divides E into heads of width d.
        mode: how scores grow, one of `MODES`.
        alpha: how fast, in modes "steps" and "log".
        length: number of tokens from which on they grow, in the same modes.

    Shape:
        - x: (B, T, E), in `step` the next T tokens
        - is_causal: whether later tokens are hidden
        - state: a `NoPositionCache`, or None at the start
        - attention(x, is_causal): (B, heads, T, T)
        - forward(x, is_causal): (B, T, E)
        - step(x, state): (B, T, E) and the new state, of the causal layer; the one passed stays as it was

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide `embed_dim`, `mode` is none of `MODES`,
            `alpha` is not finite, `x` is not (B, T, E), or `state` is not one that fits this layer, `x` and
            its dtype.

    Tokens in another order: without a causal mask, the same outputs in that order; with it, others.

    >>> layer, (x,) = example()
    >>> order = torch.tensor([3, 1, 4, 0, 2, 9, 5, 8, 7, 6])
    >>> for is_causal in (False, True):
    ...     print(torch.allclose(layer(x[:, order], is_causal), layer(x, is_causal)[:, order], atol=1e-5))
    True
    False

    A causal layer can count: a head that asks for nothing reads the mean, here of a mark on the first token.

    >>> layer, mark = NoPositionAttention(1, 1), torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> _ = nn.init.zeros_(layer.q_proj.weight), nn.init.ones_(layer.v_proj.weight)
    >>> _ = nn.init.ones_(layer.out_proj.weight)
    >>> layer(mark[None, :, None]).detach().flatten()
    tensor([1.0000, 0.5000, 0.3333, 0.2500])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mode: str = "constant",
        alpha: float = 0.1,
        length: int = 8192,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or length < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, num_heads {num_heads} and length {length} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if not math.isfinite(alpha):
            raise ValueError(f"alpha {alpha} must be finite")
        self.num_heads, self.mode = operator.index(num_heads), mode
        self.alpha, self.length = float(alpha), operator.index(length)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        if mode == "learned":
            self.slope = nn.Parameter(torch.empty(num_heads))
            self.shift = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with scores that do not grow."""
        if self.mode == "learned":
            nn.init.zeros_(self.slope)
            nn.init.ones_(self.shift)

    def attention(self, x: Tensor, is_causal: bool = True) -> Tensor:
        """Return g(x), the weights of each head: (B, T, E) -> (B, heads, T, T)."""
        q, k, _ = self._project(x, 0, is_causal)
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, heads, T, T)
        if is_causal:
            scores = scores.masked_fill(~_earlier(x.shape[1], x.shape[1], x.device), -torch.inf)
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor, is_causal: bool = True) -> Tensor:
        """Return f(g(x), x), all tokens at once: (B, T, E) -> (B, T, E)."""
        q, k, v = self._project(x, 0, is_causal)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=is_causal))

    def step(self, x: Tensor, state: NoPositionCache | None = None) -> tuple[Tensor, NoPositionCache]:
        """Read the next tokens; return what `forward` would give them, and the new state."""
        q, k, v = self._project(x, 0 if state is None else _seen(state), is_causal=True)
        if state is not None:
            _check(state, k)
            k, v = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        earlier = _earlier(x.shape[1], k.shape[2], x.device)
        return self._merge(F.scaled_dot_product_attention(q, k, v, earlier)), NoPositionCache(k, v)

    def growth(self, n: Tensor) -> Tensor:
        """Return what scores are multiplied by where a query sees n tokens: (T,) -> (heads or 1, T)."""
        n = n.to(torch.promote_types(self.q_proj.weight.dtype, torch.float32))  # float16 ends at 65,504
        if self.mode == "steps":
            factor = 1 + self.alpha * (n / self.length).floor().log1p()
        elif self.mode == "log":
            factor = 1 + self.alpha * (n / self.length).clamp(min=1).log()
        elif self.mode == "learned":
            return self.slope[:, None] * n.log() + self.shift[:, None]  # (heads, T)
        else:
            factor = torch.ones_like(n)
        return factor[None]

    def _project(self, x: Tensor, seen: int, is_causal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q times its growth, K and V; `seen` tokens came before."""
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        n = torch.arange(seen + 1, seen + x.shape[1] + 1, device=x.device)
        growth = self.growth(n if is_causal else n[-1:])  # without a mask each query sees all
        grown = (q * growth[..., None]).to(q.dtype)
        return grown, k, v

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
        return heads

    def _merge(self, heads: Tensor) -> Tensor:
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return output


def _earlier(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S tokens the last T of them see, True = may be attended: (T, S)."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def _seen(state: NoPositionCache) -> int:
    """Return how many tokens a state has seen; refuse what is none."""
    if not isinstance(state, NoPositionCache) or state.keys.dim() != 4:
        raise ValueError(f"state {type(state).__name__} must be a NoPositionCache of keys (B, heads, S, d)")
    return state.keys.shape[2]


def _check(state: NoPositionCache, k: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these keys (B, heads, T, d)."""
    B, heads, _, d = k.shape
    S = state.keys.shape[2]
    for name, kept in state._asdict().items():
        if kept.shape != (B, heads, S, d) or kept.dtype != k.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {k.dtype}"
            )


def example(
    B: int = 2, T: int = 10, E: int = 64, heads: int = 4
) -> tuple[NoPositionAttention, tuple[Tensor]]:
    """Return a seeded layer whose scores grow, and its input: B sequences of T tokens with E features."""
    torch.manual_seed(0)
    layer = NoPositionAttention(E, heads, "learned").eval()
    nn.init.constant_(layer.slope, 0.5)
    return layer, (torch.randn(B, T, E),)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x,) = example(**sizes)
    E, heads = x.shape[2], layer.num_heads
    return {mode: (NoPositionAttention(E, heads, mode, length=3).eval(), (x,)) for mode in MODES[:3]}


if __name__ == "__main__":
    _, (x,) = example()
    for depth, is_causal in ((2, False), (1, True), (2, True)):
        layers = [NoPositionAttention(64, 4) for _ in range(depth)]
        before, after = x, x[:, [1, 0, *range(2, 10)]]  # the first two tokens exchanged
        for layer in layers:
            before, after = before + layer(before, is_causal), after + layer(after, is_causal)
        change = (before - after)[:, -1].abs().max()
        print(f"{depth} layers, causal: {is_causal}: the last output changes by {change:.1e}")
