"""Hopfield retrieval: a state becomes the softmax mean of the patterns it resembles, which is attention.

Paper: Hubert Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021, arXiv 2008.02217.
Code: ml-jku/hopfield-layers f56f929, hflayers/functional.py.
Differs: the memory alone. The released layer also projects states and patterns, normalises them, in its
default settings, drops weights out, and may stop each head by itself, once it moves less than a threshold.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HopfieldRetrieval(nn.Module):
    """A memory of patterns, read by updating a state until it resembles one of them.

    g(x) = softmax(beta xi X^T) for a state xi and patterns X; f(g, x) = g X, which is the next state.

    Args:
        beta: how sharply the nearest patterns are preferred; 1 / sqrt(d) if not given, as in attention.
        steps: number of updates.

    Shape:
        - query: (B, T, d), the states
        - stored: (B, S, d), the patterns
        - value: (B, S, d_v), what the last update reads in place of the patterns; the patterns if not given
        - mask: bool, True = may be read; three dimensions that broadcast to (B, T, S). Padding (B, S), True
          at real patterns, is passed as `padding[:, None]`
        - attention(...): (B, T, S), the weights of the last update; those of a state sum to one
        - energy(query, stored, mask): (B, T), in float32 at least
        - forward(...): (B, T, d), or (B, T, d_v)

    A state that may read nothing becomes zeros. Scores grow with the square of the patterns and are taken in
    float32 at least; under autocast they are in its type.

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: `steps` is below 1, `beta` is not above 0 and finite, or the shapes of `query`, `stored`,
            `value` and `mask` do not fit.
        TypeError: `mask` is not bool.

    Distance of noisy patterns from what was stored, before and after one update:

    >>> _, (query, stored) = example()
    >>> (query - stored[:, :4]).norm(dim=2).mean().item() > 1.5
    True
    >>> found = HopfieldRetrieval(beta=2.0)(query, stored)
    >>> (found - stored[:, :4]).norm(dim=2).max().item() < 0.01
    True

    The energy never rises:

    >>> memory = HopfieldRetrieval()
    >>> bool((memory.energy(memory(query, stored), stored) <= memory.energy(query, stored)).all())
    True
    """

    def __init__(self, beta: float | None = None, steps: int = 1) -> None:
        super().__init__()
        if beta is not None and not 0 < beta < math.inf:
            raise ValueError(f"beta {beta} must be above 0 and finite")
        if steps < 1:
            raise ValueError(f"steps {steps} must be at least 1")
        self.beta, self.steps = None if beta is None else float(beta), operator.index(steps)

    def attention(
        self, query: Tensor, stored: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x), the weights of the last update: (B, T, S). `value` is not used."""
        _check(query, stored, value, mask)
        scores = self._scores(self._settle(query, stored, mask), stored)
        if mask is None:
            return scores.softmax(dim=-1).to(query.dtype)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
        return weights.masked_fill(~mask, 0.0).to(query.dtype)  # empties rows without a pattern

    def forward(
        self, query: Tensor, stored: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return f(g(x), x), the states after all updates: (B, T, d)."""
        _check(query, stored, value, mask)
        return self._read(self._settle(query, stored, mask), stored, stored if value is None else value, mask)

    def energy(self, query: Tensor, stored: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return |xi|^2 / 2 - ln(sum exp(beta xi X^T)) / beta of each state, which updates lower: (B, T)."""
        _check(query, stored, None, mask)
        scores = self._scores(query, stored)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return query.to(scores.dtype).square().sum(dim=-1) / 2 - scores.logsumexp(dim=-1) / self._beta(stored)

    def _scores(self, query: Tensor, stored: Tensor) -> Tensor:
        """Return beta xi X^T, in float32 at least: (B, T, S)."""
        exact = torch.promote_types(query.dtype, torch.float32)
        return (query.to(exact) * self._beta(stored)) @ stored.to(exact).mT

    def _settle(self, query: Tensor, stored: Tensor, mask: Tensor | None) -> Tensor:
        """Return the states before the last update."""
        for _ in range(self.steps - 1):
            query = self._read(query, stored, stored, mask)
        return query

    def _read(self, query: Tensor, stored: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Update once, by the fused kernel, as one head of attention."""
        allowed = None if mask is None else mask[:, None]  # (B, 1, T, S)
        heads = query[:, None], stored[:, None], value[:, None]
        return F.scaled_dot_product_attention(*heads, allowed, scale=self.beta).squeeze(1)  # (B, T, d)

    def _beta(self, stored: Tensor) -> float:
        return float(stored.shape[-1] ** -0.5) if self.beta is None else self.beta


def _check(query: Tensor, stored: Tensor, value: Tensor | None, mask: Tensor | None) -> None:
    """Refuse what would broadcast."""
    if query.dim() != 3 or stored.dim() != 3 or query.shape[::2] != stored.shape[::2]:
        raise ValueError(
            f"query {tuple(query.shape)} and stored {tuple(stored.shape)} must be (B, T, d) and (B, S, d) "
            "with the same B and d"
        )
    if value is not None and value.shape[:-1] != stored.shape[:-1]:
        raise ValueError(
            f"value {tuple(value.shape)} must be (B, S, d_v) with B and S of stored {tuple(stored.shape)}"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be read, not {mask.dtype}")
    shape = (*query.shape[:2], stored.shape[1])
    if mask.dim() != 3 or any(n not in (1, full) for n, full in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = {shape}; "
            "padding (B, S) is passed as padding[:, None]"
        )


def example(
    B: int = 2, T: int = 4, S: int = 10, d: int = 16, steps: int = 3
) -> tuple[HopfieldRetrieval, tuple[Tensor, Tensor]]:
    """Return a memory that updates so often, and its inputs: T noisy ones of S seeded patterns of width d."""
    torch.manual_seed(0)
    stored = torch.randn(B, S, d)
    query = stored[:, torch.arange(T) % S] + torch.randn(B, T, d) / 2
    return HopfieldRetrieval(steps=steps).eval(), (query, stored)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its inputs."""
    memory, (query, stored) = example(**sizes)
    value = torch.randn(*stored.shape[:2], 5)
    mask = torch.rand(*query.shape[:2], stored.shape[1]) > 0.3
    mask[:, 0] = False
    return {
        "sharp": (HopfieldRetrieval(beta=0.5).eval(), (query, stored)),
        "value": (memory, (query, stored, value)),
        "masked": (memory, (query, stored, value, mask)),
    }


if __name__ == "__main__":
    _, (query, stored) = example()
    for beta in (0.1, 0.25, 0.5, 1.0, 2.0):
        found = HopfieldRetrieval(beta)(query, stored)
        distance = (found - stored[:, : query.shape[1]]).norm(dim=2).mean()
        print(f"beta {beta}: one update leaves a distance of {distance:.3f} to the pattern")
