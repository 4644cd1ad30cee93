"""Local attention: each query predicts a position of the source and reads a small window around it, softly.

Paper: Minh-Thang Luong, Hieu Pham, Christopher D. Manning, "Effective Approaches to Attention-based Neural
Machine Translation", EMNLP 2015, arXiv 1508.04025.
Code: github.com/lmthang/nmt.matlab, 32f8564, code/layers/attnLayerForward.m and attnLayerBackprop.m.
Differs: one step of attention; the layer tanh(W_c [c; h]) that follows is left to the reader. Positions count
from 0. The window holds the positions at a distance of at most D from the predicted position itself; the
released code rounds it down first. Past the end of the source, local-m has an empty window; there it stays at
the last word. With a mask, S is the length of each source without its padding. Layers start as torch starts
them; there uniform in [-0.1, 0.1].
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
from torch import Tensor, nn


class LocalAttention(nn.Module):
    """Luong's local attention with the score q^T W k, "general".

    The centre is p = S sigmoid(v_p^T tanh(W_p q)), or p = t for query t ("monotonic", local-m). g is the
    softmax of the scores over the keys at |s - p| <= D, times exp(-(s - p)^2 / 2 sigma^2) with sigma = D / 2
    unless monotonic; f(g, k) = sum of g_s k_s. Positions and weights are computed in float32 at least.

    Args:
        embed_dim: width d of queries and keys.
        half_width: D; a window has at most 2D + 1 positions.
        monotonic: local-m, which has no Gaussian and no parameters for the centre.

    Shape:
        - query: (B, T, d), decoder states; the first is t = 0
        - key: (B, S, d), encoder states
        - mask: bool, True = may be attended, three dimensions that broadcast to (B, T, S); padding (B, S) is
          `padding[:, None]`
        - attention(query, key): (B, T, S), zero outside the windows; sums to one over S if monotonic, to
          less if not; an empty window has zeros
        - forward(query, key): (B, T, d)

    Raises:
        ValueError: `embed_dim` or `half_width` is below 1, or shapes do not fit.
        TypeError: `mask` is not bool.

    With equal scores, a centre at S / 2 and D = 2 the weights are a Gaussian over five, not renormalised:

    >>> attend = LocalAttention(4, half_width=2)
    >>> for parameter in attend.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> weights = attend.attention(torch.ones(1, 1, 4), torch.ones(1, 8, 4))
    >>> [round(w, 3) for w in weights.flatten().tolist()]
    [0.0, 0.0, 0.027, 0.121, 0.2, 0.121, 0.027, 0.0]
    """

    def __init__(self, embed_dim: int, half_width: int = 10, monotonic: bool = False) -> None:
        super().__init__()
        if embed_dim < 1 or half_width < 1:
            raise ValueError(f"embed_dim {embed_dim} and half_width {half_width} must be at least 1")
        self.half_width = operator.index(half_width)
        self.W = nn.Linear(embed_dim, embed_dim, bias=False)
        self.predict = (
            None
            if monotonic
            else nn.Sequential(
                nn.Linear(embed_dim, embed_dim, bias=False),  # W_p
                nn.Tanh(),
                nn.Linear(embed_dim, 1, bias=False),  # v_p
            )
        )

    def centre(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return p, a real position of the source, for each query: (B, T, 1)."""
        high = torch.promote_types(query.dtype, torch.float32)
        if self.predict is None:
            steps = torch.arange(query.shape[1], device=query.device, dtype=high)
            return steps[:, None].expand(query.shape[0], -1, -1)  # (B, T, 1)
        share: Tensor = self.predict(query).to(high).sigmoid()  # (B, T, 1)
        return share * _length(key, mask)

    def attention(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g, laid out over the whole source: (B, T, S)."""
        position, weights, _ = self._windows(query, key, mask)
        empty = weights.new_zeros(*query.shape[:2], key.shape[1])  # (B, T, S)
        return empty.scatter_add(2, position, weights)

    def forward(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g, k), what each query reads: (B, T, d)."""
        _, weights, near = self._windows(query, key, mask)
        return torch.einsum("btw,btwd->btd", weights, near)

    def _windows(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions and weights of each window, (B, T, w), and its keys, (B, T, w, d); w = 2D + 1."""
        _check(query, key, mask)
        centre = self.centre(query, key, mask)  # (B, T, 1)
        offsets = torch.arange(2 * self.half_width + 1, device=key.device)
        place = (centre.detach() - self.half_width).ceil().long() + offsets  # (B, T, w)
        position = place.clamp(0, key.shape[1] - 1)
        distance = place - centre
        allowed = (place == position) & (distance.detach() <= self.half_width)
        if mask is not None:
            allowed &= mask.expand(*query.shape[:2], key.shape[1]).gather(2, position)
        index = position.flatten(1)[..., None].expand(-1, -1, key.shape[2])  # (B, T w, d)
        near = key.gather(1, index).view(*position.shape, key.shape[2])  # (B, T, w, d)
        scale = math.sqrt(key.shape[2])  # keeps the sum within half precision
        scores = torch.einsum("btd,btwd->btw", self.W(query) / scale, near).to(centre.dtype) * scale
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(2).masked_fill(~allowed, 0.0)
        if self.predict is not None:
            weights = weights * torch.exp(-2 * (distance / self.half_width).square())  # sigma = D / 2
        return position, weights.to(query.dtype), near


def _length(key: Tensor, mask: Tensor | None) -> Tensor | int:
    """Return the length of each source up to its last allowed key: S, or (B or 1, T or 1, 1)."""
    if mask is None:
        return key.shape[1]
    ends = torch.arange(1, key.shape[1] + 1, device=key.device)
    return (mask * ends).amax(-1, keepdim=True)


def _check(query: Tensor, key: Tensor, mask: Tensor | None) -> None:
    shape = (*query.shape[:2], *key.shape[1:2])  # (B, T, S)
    if query.dim() != 3 or key.shape != (query.shape[0], *shape[2:], query.shape[2]):
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, T, d) and (B, S, d) with the "
            "same B and d"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], shape[::-1], strict=False))
    if mask.dim() != 3 or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = {shape}; "
            "(T, S) is passed as mask[None], padding (B, S) as padding[:, None]"
        )


def example(
    B: int = 3, T: int = 7, S: int = 11, d: int = 13, w: int = 2
) -> tuple[LocalAttention, tuple[Tensor, Tensor]]:
    """Return a seeded block of half width w and its inputs: decoder and encoder states."""
    torch.manual_seed(0)
    return LocalAttention(d, half_width=w).eval(), (torch.randn(B, T, d), torch.randn(B, S, d))


def variants(**sizes: int) -> dict[str, tuple[LocalAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attend, (query, key) = example(**sizes)
    monotonic = LocalAttention(query.shape[2], attend.half_width, monotonic=True).eval()
    padding = torch.arange(key.shape[1]) <= 3 * key.shape[1] // 4  # (S,)
    mask = padding.expand(query.shape[0], 1, -1)
    return {"monotonic": (monotonic, (query, key)), "masked": (attend, (query, key, mask))}


if __name__ == "__main__":
    attend, (query, key) = example()
    centre, weights = attend.centre(query, key)[0], attend.attention(query, key)[0]
    for t in range(len(centre)):
        row = [round(weight, 2) for weight in weights[t].tolist()]
        print(f"query {t}: centre {centre[t].item():.2f}, weights {row}")
