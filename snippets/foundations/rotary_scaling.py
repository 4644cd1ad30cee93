"""Stretching rotary positions: slower angles, so that a model reads texts longer than those of its training.

Paper: Bowen Peng, Jeffrey Quesnelle, Honglu Fan, Enrico Shippole, "YaRN: Efficient Context Window Extension
of Large Language Models", ICLR 2024, arXiv 2309.00071; Shouyuan Chen, Sherman Wong, Liangjian Chen,
Yuandong Tian, "Extending Context Window of Large Language Models via Positional Interpolation", arXiv 2023,
arXiv 2306.15595 (linear); Yiran Ding et al., "LongRoPE: Extending LLM Context Window Beyond 2 Million
Tokens", arXiv 2024, arXiv 2402.13753. NTK-aware scaling was published in forums, Llama 3's rule in its
code.
Code: huggingface/transformers 5.23.0, modeling_rope_utils.py; jquesnelle/yarn 995db5b5.
Differs: YaRN's ramp is that of the released code, which is not the paper's; `paper_ramp` is. Frequencies are
computed in float64, angles in float32 at least.
SPDX-License-Identifier: MIT
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain(width: int, base: float = 10_000.0) -> Tensor:
    """Return the radians from token to token of each pair, base^(-2i / width): (width / 2,)."""
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def linear(frequencies: Tensor, factor: float) -> Tensor:
    """Return all frequencies divided by the factor, as if positions were."""
    return frequencies / factor


def ntk(width: int, factor: float, base: float = 10_000.0) -> Tensor:
    """Return frequencies of a larger base: the first stays, the last is divided by the factor exactly.

    >>> [f"{ratio:.4f}" for ratio in (ntk(64, 4.0) / plain(64))[[0, -1]]]
    ['1.0000', '0.2500']
    """
    return plain(width, base * factor ** (width / (width - 2)))


def dynamic(width: int, factor: float, length: int, trained: int, base: float = 10_000.0) -> Tensor:
    """Return those of `ntk` for the length read so far; up to the trained length they are plain."""
    stretch = max(1.0, factor * length / trained - (factor - 1))
    return ntk(width, stretch, base)


def blend(frequencies: Tensor, factor: float, keep: Tensor) -> Tensor:
    """Return keep f + (1 - keep) f / factor."""
    return frequencies * (keep + (1 - keep) / factor)


def turns(frequencies: Tensor, trained: int) -> Tensor:
    """Return how often each pair comes round within the trained length."""
    return frequencies * trained / (2 * math.pi)


def yarn(
    width: int,
    factor: float,
    trained: int,
    base: float = 10_000.0,
    fast: float = 32.0,
    slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    """Return YaRN's frequencies as released: kept at more than `fast` turns, divided below `slow`.

    In between a ramp over the *index* of the pair. Cosines and sines are to be multiplied by `yarn_length`.
    """
    low, high = (width * math.log(trained / (2 * math.pi * n)) / (2 * math.log(base)) for n in (fast, slow))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    pair = torch.arange(width // 2, dtype=torch.float64)
    ramp = (pair - low) / (high - low if high > low else 1e-3)
    return blend(plain(width, base), factor, 1 - ramp.clamp(0, 1))


def paper_ramp(
    frequencies: Tensor, factor: float, trained: int, slow: float = 1.0, fast: float = 32.0
) -> Tensor:
    """Return the frequencies of YaRN's paper and of Llama 3: the ramp goes over the turns."""
    return blend(frequencies, factor, ((turns(frequencies, trained) - slow) / (fast - slow)).clamp(0, 1))


def yarn_length(factor: float) -> float:
    """Return 0.1 ln(factor) + 1, by which YaRN lengthens queries and keys; scores grow by its square.

    >>> print(f"{yarn_length(4.0):.4f}")
    1.1386
    """
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def longrope(frequencies: Tensor, divisors: Sequence[float]) -> Tensor:
    """Return each frequency divided by its own number, found by a search; long texts have another list."""
    return frequencies / torch.tensor(divisors, dtype=torch.float64)


def longrope_length(factor: float, trained: int) -> float:
    """Return sqrt(1 + ln(factor) / ln(trained)), likewise."""
    return math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0


class ScaledRotaryAttention(nn.Module):
    """Causal attention whose queries and keys are turned at given frequencies.

    g(x) = softmax(R_m Q_m . R_n K_n length^2 / sqrt(d)); f(g, x) = g V.

    Args:
        frequencies: radians from token to token of the pairs (i, i + d/2), by one of the functions above.
        length: what cosines and sines are multiplied by, see `yarn_length`.

    Shape:
        - query: (B, heads, T, d), the last T of S tokens
        - key: (B, heads, S, d)
        - value: (B, heads, S, d_v)
        - attention(...): (B, heads, T, S)
        - forward(...): (B, heads, T, d_v)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: `length` is not above 0 and finite, or query, key and value do not fit each other or the
            frequencies.

    Linear scaling by four is as if tokens stood a quarter apart: the fourth next scores as the next did.

    >>> near, far = (ScaledRotaryAttention(linear(plain(8), factor)) for factor in (1.0, 4.0))
    >>> x = torch.ones(1, 1, 9, 8)
    >>> a, b = near.attention(x, x)[0, 0, 8].log(), far.attention(x, x)[0, 0, 8].log()
    >>> torch.allclose(a[8] - a[7], b[8] - b[4], atol=1e-5)
    True
    """

    def __init__(self, frequencies: Tensor, length: float = 1.0) -> None:
        super().__init__()
        if not 0 < length < math.inf:
            raise ValueError(f"length {length} must be above 0 and finite")
        self.frequencies, self.length = tuple(frequencies.tolist()), float(length)

    def attention(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        """Return g(x), the weights: (B, heads, T, S). `value` is not used."""
        query, key = self._turned(query, key)
        scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.mT  # (B, heads, T, S)
        earlier = self._earlier(query, key)
        scores = scores.masked_fill(~earlier, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~earlier, 0.0)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return f(g(x), x) by the fused kernel: (B, heads, T, d_v)."""
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, heads, S, d_v) with B and S of key "
                f"{tuple(key.shape)}"
            )
        query, key = self._turned(query, key)
        return F.scaled_dot_product_attention(query, key, value, self._earlier(query, key))

    def _turned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys, turned by their positions."""
        if query.dim() != 4 or key.dim() != 4 or query.shape[:2] != key.shape[:2]:
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, heads, T, d) and "
                "(B, heads, S, d) with the same B and heads"
            )
        T, S, d = query.shape[2], key.shape[2], 2 * len(self.frequencies)
        if query.shape[3] != d or key.shape[3] != d:
            raise ValueError(f"query {tuple(query.shape)} must be (B, heads, T, d) with d = {d}")
        dtype = torch.promote_types(query.dtype, torch.float32)
        pace = torch.tensor(self.frequencies, dtype=dtype, device=query.device)
        angle = torch.arange(min(S - T, 0), S, device=query.device)[:, None] * pace  # (.., d/2)
        cos, sin = (wave.to(query.dtype) * self.length for wave in (angle.cos(), angle.sin()))
        return _turn(query, cos[-T:], sin[-T:]), _turn(key, cos[-S:], sin[-S:])

    @staticmethod
    def _earlier(query: Tensor, key: Tensor) -> Tensor:
        """Which keys are not behind a query, True = may be attended: (T, S)."""
        T, S = query.shape[2], key.shape[2]
        return torch.ones(T, S, dtype=torch.bool, device=query.device).tril(S - T)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)  # (B, heads, T, d/2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def example(
    B: int = 2, heads: int = 4, T: int = 6, S: int = 10, d: int = 8, d_v: int = 5
) -> tuple[ScaledRotaryAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return attention with YaRN's frequencies, seeded inputs: T queries at the end of S tokens."""
    torch.manual_seed(0)
    inputs = torch.randn(B, heads, T, d), torch.randn(B, heads, S, d), torch.randn(B, heads, S, d_v)
    frequencies = yarn(d, factor=4.0, trained=64)
    return ScaledRotaryAttention(frequencies, yarn_length(4.0)).eval(), inputs


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a module in eval mode and its inputs."""
    _, inputs = example(**sizes)
    d = inputs[0].shape[3]
    made = {"linear": linear(plain(d), 4.0), "llama3": paper_ramp(plain(d), 8.0, 64, 1.0, 4.0)}
    return {name: (ScaledRotaryAttention(found).eval(), inputs) for name, found in made.items()}


if __name__ == "__main__":
    released, paper = yarn(64, 4.0, 4096), paper_ramp(plain(64), 4.0, 4096)
    print(f"YaRN's code and paper differ by up to {((released - paper).abs() / paper).max():.0%}")
    old, new = plain(128, 5e5), paper_ramp(plain(128, 5e5), 8.0, 8192, 1.0, 4.0)
    kept, divided = int((new == old).sum()), int(torch.isclose(new, old / 8).sum())
    print(f"Llama 3.1: {kept} pairs kept, {64 - kept - divided} between, {divided} divided by 8")
