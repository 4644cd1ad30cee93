"""Rotary positions in two and three axes: each pair of features is turned along one axis of a token's place.

Paper: Peng Wang, Shuai Bai, Sinan Tan et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the
World at Any Resolution", arXiv 2024, arXiv 2409.12191 (M-RoPE); Byeongho Heo, Song Park, Dongyoon Han,
Sangdoo Yun, "Rotary Position Embedding for Vision Transformer", ECCV 2024, arXiv 2403.13298 (axial).
Code: huggingface/transformers 5.23.0, modeling_qwen2_vl.py (axial and contiguous), modeling_qwen3_vl.py
(interleaved) and modeling_dinov3_vit.py (axial) below models/.
Differs: behind a clip text goes on above its largest number, in the code above its height and width. Angles
are float32 at least.
SPDX-License-Identifier: MIT
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("contiguous", "interleaved")


class Turns(NamedTuple):
    """What turns each pair of features.

    Attributes:
        axis: number of the axis.
        pace: radians from one place to the next along it.
    """

    axis: tuple[int, ...]
    pace: tuple[float, ...]


def axial(pairs: Sequence[int], base: float = 10_000.0) -> Turns:
    """Return as many pairs for each axis as are given, in turn, each axis with paces from fast to slow.

    >>> axial((2, 2), base=100.0)
    Turns(axis=(0, 0, 1, 1), pace=(1.0, 0.1, 1.0, 0.1))
    """
    pace = tuple(base ** (-i / count) for count in pairs for i in range(count))
    return Turns(_blocks(pairs), pace)


def mrope(pairs: Sequence[int], base: float = 10_000.0, mode: str = "contiguous") -> Turns:
    """Return the paces of one axis, from fast to slow, shared out among the axes.

    Args:
        pairs: how many each axis gets.
        base: the larger, the more slowly the last pairs turn.
        mode: "contiguous", the fastest to the first axis and the slowest to the last; or "interleaved", one
            to each in turn, the first axis also in place of those that have theirs.

    Raises:
        ValueError: `mode` is unknown, `pairs` does not hold numbers of at least 1, or, interleaved, the pairs
            end before each axis has had its own.

    >>> mrope((4, 3, 3)).axis, mrope((4, 3, 3), mode="interleaved").axis
    ((0, 0, 0, 0, 1, 1, 1, 2, 2, 2), (0, 1, 2, 0, 1, 2, 0, 1, 2, 0))
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
    axis = _blocks(pairs)
    if mode == "interleaved":
        axes = len(pairs)
        axis = tuple(n % axes if n // axes < pairs[n % axes] else 0 for n in range(sum(pairs)))
        dealt = tuple(map(axis.count, range(axes)))
        if dealt != tuple(pairs):
            raise ValueError(f"pairs {tuple(pairs)} must hold what is dealt in turn, which is {dealt}")
    return Turns(axis, tuple(base ** (-i / len(axis)) for i in range(len(axis))))


def _blocks(pairs: Sequence[int]) -> tuple[int, ...]:
    """Return the number of each axis as often as it has pairs."""
    if not pairs or min(pairs) < 1:
        raise ValueError(f"pairs {tuple(pairs)} must hold one or more numbers of at least 1")
    return tuple(axis for axis, count in enumerate(pairs) for _ in range(count))


def grid(*sizes: int) -> Tensor:
    """Return the places of a picture (rows, columns) or clip (frames, rows, columns), in reading order.

    >>> grid(2, 3).tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    axes = torch.meshgrid(*map(torch.arange, sizes), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, -2)  # (tokens, axes)


def mixed(*parts: int | tuple[int, int, int]) -> Tensor:
    """Return the places (time, row, column) of text and vision in one sequence: (tokens, 3).

    A word counts on all axes at once. A picture or clip (frames, rows, columns) begins where the next word
    would be, and what follows it is above all of its numbers.

    Raises:
        ValueError: a part is empty.

    >>> mixed(2, (1, 2, 3), 2).T.tolist()
    [[0, 1, 2, 2, 2, 2, 2, 2, 5, 6], [0, 1, 2, 2, 2, 3, 3, 3, 5, 6], [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]]
    """
    places: list[Tensor] = []
    start = 0
    for part in parts:
        if torch.tensor(part).min() < 1:
            raise ValueError(f"part {part} must hold numbers of at least 1")
        place = torch.arange(part)[:, None].expand(-1, 3) if isinstance(part, int) else grid(*part)
        places.append(start + place)
        start = int(places[-1].max()) + 1
    return torch.cat(places)


def angles(position: Tensor, turns: Turns, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the angle of each pair, place along its axis times pace: (..., axes) -> (..., pairs)."""
    pace = torch.tensor(turns.pace, dtype=dtype, device=position.device)
    return position[..., list(turns.axis)] * pace


class RotaryAxesAttention(nn.Module):
    """Attention whose scores see how far apart two tokens are along each axis.

    g(x) = softmax(R_m Q_m . R_n K_n / sqrt(d)); f(g, x) = g V. R_m turns the pair (i, i + d/2) by pace_i
    times the place of m along axis_i; values are not turned.

    Args:
        turns: axis and pace of the d / 2 pairs, by `axial` or `mrope`.
        causal: whether a query sees no later key, in the order of the tokens.

    Shape:
        - query, key: (B, heads, T, d)
        - value: (B, heads, T, d_v)
        - position: (B, T, axes), whole numbers or not
        - attention(...): (B, heads, T, T)
        - forward(...): (B, heads, T, d_v)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: axes and paces are not as many, or query, key, value and position do not fit each other or
            the turns.

    Nine equal tokens in a square, the weights of the one in the middle:

    >>> attend, x = RotaryAxesAttention(axial((1, 1))), torch.ones(1, 1, 9, 4)
    >>> print(attend.attention(x, x, x, grid(3, 3)[None])[0, 0, 4].view(3, 3))
    tensor([[0.0779, 0.1233, 0.0779],
            [0.1233, 0.1953, 0.1233],
            [0.0779, 0.1233, 0.0779]])
    """

    def __init__(self, turns: Turns, causal: bool = False) -> None:
        super().__init__()
        axis, pace = turns
        if len(axis) != len(pace):
            raise ValueError(f"turns {turns} must hold as many axes as paces")
        self.turns, self.causal = Turns(tuple(axis), tuple(pace)), causal

    def attention(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        """Return g(x), the weights: (B, heads, T, T). `value` is not used."""
        query, key = self._turned(query, key, position)
        scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.mT  # (B, heads, T, T)
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return scores.softmax(dim=-1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        """Return f(g(x), x) by the fused kernel: (B, heads, T, d_v)."""
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, heads, T, d_v) with B, heads and T of key "
                f"{tuple(key.shape)}"
            )
        query, key = self._turned(query, key, position)
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)

    def _turned(self, query: Tensor, key: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys, turned by their places."""
        d, axes = 2 * len(self.turns.axis), max(self.turns.axis) + 1
        if query.dim() != 4 or query.shape != key.shape or query.shape[3] != d:
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, heads, T, d) with d = {d}"
            )
        B, _, T, _ = query.shape
        if position.shape != (B, T, axes):
            raise ValueError(f"position {tuple(position.shape)} must be (B, T, axes) = {(B, T, axes)}")
        dtype = torch.promote_types(query.dtype, torch.float32)
        angle = angles(position, self.turns, dtype)[:, None]  # (B, 1, T, d/2)
        cos, sin = angle.cos().to(query.dtype), angle.sin().to(query.dtype)
        return _turn(query, cos, sin), _turn(key, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)  # (B, heads, T, d/2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def example(
    B: int = 2, heads: int = 4, T: int = 10, d: int = 12, d_v: int = 5
) -> tuple[RotaryAxesAttention, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return attention with interleaved axes and seeded inputs: the first T patches of frames of 2 x 3."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, T, width) for width in (d, d, d_v))
    position = grid(T, 2, 3)[:T].expand(B, -1, -1)
    turns = mrope((d // 2 - 2 * (d // 6), d // 6, d // 6), mode="interleaved")
    return RotaryAxesAttention(turns, causal=True).eval(), (query, key, value, position)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a module in eval mode and its inputs."""
    attend, (query, key, value, position) = example(**sizes)
    pairs = tuple(map(attend.turns.axis.count, range(3)))
    two = axial((pairs[0] + pairs[1], pairs[2]))
    return {
        "contiguous": (RotaryAxesAttention(mrope(pairs), causal=True).eval(), (query, key, value, position)),
        "axial": (RotaryAxesAttention(two).eval(), (query, key, value, position[..., 1:])),
    }


if __name__ == "__main__":
    for mode in MODES:
        turns = mrope((16, 24, 24), 1e6, mode) if mode == "contiguous" else mrope((24, 20, 20), 1e6, mode)
        fastest = [turns.pace[turns.axis.index(axis)] for axis in range(3)]
        print(f"{mode}: fastest pair of time, row, column", *(f"{pace:.2g}" for pace in fastest))
    print("two words, three frames of 2 x 2, two words:", *mixed(2, (3, 2, 2), 2)[:, 0].tolist())
