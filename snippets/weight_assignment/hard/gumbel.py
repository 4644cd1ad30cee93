"""Gumbel-softmax attention: noise on the scores draws one key, a softmax makes the draw differentiable.

Paper: Eric Jang, Shixiang Gu, Ben Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017,
arXiv 1611.01144. The same distribution: Maddison, Mnih, Teh, "The Concrete Distribution", ICLR 2017,
arXiv 1611.00712. Straight-through: Bengio, Léonard, Courville, arXiv 1308.3432, 2013.
Code: github.com/ericjang/gumbel-softmax, 4deb8bd, Categorical VAE.ipynb; torch.nn.functional.gumbel_softmax.
Differs: the papers treat any categorical variable; here it is the choice of a key, scored by q^T W k. Noise
is -log of an exponential variable, which has the same distribution as -log(-log u). In eval mode the
likeliest key is read instead of a sample. A query without an allowed key reads zeros.
SPDX-License-Identifier: MIT
"""

import math

import torch
from torch import Tensor, nn


def gumbel_softmax(
    scores: Tensor, temperature: float, hard: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Draw weights y = softmax((scores + noise) / temperature) over the last axis, with Gumbel noise.

    The largest entry of y is entry i with probability softmax(scores)_i, at any temperature (Gumbel-max).
    With `hard` the result is one-hot at that entry and has the gradient of y (straight-through). Noise and
    softmax are computed in float32 at least; the result has the type of the scores.

    Args:
        scores: (..., S), logarithms of probabilities up to a constant; not the probabilities themselves.
        temperature: above 0; low is nearly one-hot, high nearly uniform.
        hard: whether the result is one-hot.
        mask: bool, True = may be drawn, broadcasts to the scores.

    Raises:
        ValueError: `temperature` is not above 0, or `mask` does not broadcast.
        TypeError: `scores` are not floating-point, or `mask` is not bool.

    >>> _ = torch.manual_seed(0)
    >>> scores = torch.tensor([0.6, 0.3, 0.1]).log()
    >>> draws = gumbel_softmax(scores.expand(100_000, 3), temperature=1.0, hard=True)
    >>> [round(share, 2) for share in draws.mean(0).tolist()]
    [0.6, 0.3, 0.1]
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating-point, not {scores.dtype}")
    if mask is not None:
        _check(mask, scores)
    noise = -torch.empty_like(scores, dtype=_float32_or_more(scores)).exponential_().log()
    noisy = scores + noise
    soft = _softmax(noisy / temperature, mask)
    weights = _one_hot(noisy, mask) - soft.detach() + soft if hard else soft
    return weights.to(scores.dtype)


class GumbelAttention(nn.Module):
    """Attention that reads one key at a time and is trained by back-propagation.

    g(q, k) is a draw of `gumbel_softmax` from the scores q^T W k in train mode and one-hot at the largest
    score in eval mode; f(g, v) = sum of g_s v_s.

    Args:
        query_dim: width d_q of the queries.
        key_dim: width d_k of the keys.
        temperature: of the relaxation; an attribute that may be lowered during training.
        straight_through: read one value as it is; otherwise a mixture, close to one value if the
            temperature is low.

    Shape:
        - query: (B, T, d_q)
        - key: (B, S, d_k)
        - value: (B, S, d_v)
        - mask: bool, True = may be attended, three dimensions that broadcast to (B, T, S); padding (B, S) is
          `padding[:, None]`
        - attention(query, key): (B, T, S); sums to one over S
        - forward(query, key, value): (B, T, d_v)

    Raises:
        ValueError: a width is below 1, `temperature` is not above 0, or shapes do not fit.
        TypeError: `mask` is not bool.

    In train mode the weights are zero and one, and the scores learn all the same:

    >>> attend, (query, key, value) = example()
    >>> weights = attend.train().attention(query, key)
    >>> sorted(set(weights.flatten().tolist()))
    [0.0, 1.0]
    >>> attend(query, key, value).square().sum().backward()
    >>> bool(attend.W.weight.grad.any())
    True
    """

    def __init__(
        self, query_dim: int, key_dim: int, temperature: float = 1.0, straight_through: bool = True
    ) -> None:
        super().__init__()
        if min(query_dim, key_dim) < 1:
            raise ValueError(f"query_dim {query_dim} and key_dim {key_dim} must be at least 1")
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} must be above 0")
        self.W = nn.Linear(query_dim, key_dim, bias=False)
        self.temperature = temperature
        self.straight_through = straight_through

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Return q^T W k, the logits of the policy, in float32 at least: (B, T, S)."""
        if query.dim() != 3 or key.dim() != 3 or query.shape[0] != key.shape[0]:
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, T, d_q) and (B, S, d_k) "
                "with the same B"
            )
        scale = math.sqrt(key.shape[2])
        products: Tensor = (self.W(query) / scale) @ key.mT  # (B, T, S), small enough for half precision
        return products.to(_float32_or_more(products)) * scale

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g, new in each call of train mode: (B, T, S). `value` is not used."""
        scores = self.scores(query, key)
        if mask is not None:
            _check(mask, scores, batched=True)
        if self.training:
            return gumbel_softmax(scores, self.temperature, self.straight_through, mask).to(query.dtype)
        return _one_hot(scores, mask).to(query.dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g, v), what each query reads: (B, T, d_v)."""
        if value.dim() != 3 or value.shape[:2] != key.shape[:2]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, S, d_v) with B and S of key {tuple(key.shape)}"
            )
        return self.attention(query, key, mask=mask) @ value


def _float32_or_more(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the allowed keys; rows without a key are empty."""
    weights = _fill(scores, mask).softmax(-1)
    return weights if mask is None else weights.masked_fill(~mask, 0.0)


def _one_hot(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return one at the largest score of each row and zero elsewhere; rows without a key are empty."""
    largest = _fill(scores, mask).argmax(-1, keepdim=True)
    weights = torch.zeros_like(scores).scatter(-1, largest, 1.0)
    return weights if mask is None else weights.masked_fill(~mask, 0.0)


def _fill(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _check(mask: Tensor, scores: Tensor, batched: bool = False) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
    if batched and (mask.dim() != 3 or not fits):
        raise ValueError(
            f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = "
            f"{tuple(scores.shape)}; (T, S) is passed as mask[None], padding (B, S) as padding[:, None]"
        )
    if mask.dim() > scores.dim() or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have at most {scores.dim()} dimensions that broadcast to scores "
            f"{tuple(scores.shape)}"
        )


def example(
    B: int = 2, T: int = 3, S: int = 5, d_q: int = 8, d_k: int = 6, d_v: int = 4
) -> tuple[GumbelAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a seeded block and its inputs: queries, keys and values of different widths."""
    torch.manual_seed(0)
    inputs = torch.randn(B, T, d_q), torch.randn(B, S, d_k), torch.randn(B, S, d_v)
    return GumbelAttention(d_q, d_k).eval(), inputs


def variants(**sizes: int) -> dict[str, tuple[GumbelAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attend, (query, key, value) = example(**sizes)
    widths, padding = (query.shape[2], key.shape[2]), torch.arange(key.shape[1]) % 4 != 3  # (S,)
    return {
        "soft": (GumbelAttention(*widths, straight_through=False).eval(), (query, key, value)),
        "masked": (attend, (query, key, value, padding.expand(query.shape[0], 1, -1))),
    }


if __name__ == "__main__":
    attend, (query, key, value) = example()
    probabilities = attend.scores(query, key).softmax(-1)[0, 0]
    print(f"probabilities of the first query: {[round(p, 2) for p in probabilities.tolist()]}")
    attend.train()
    for temperature in (10.0, 1.0, 0.1):
        torch.manual_seed(0)
        drawn = gumbel_softmax(attend.scores(query, key), temperature)[0, 0]
        print(f"one draw at temperature {temperature}: {[round(w, 2) for w in drawn.tolist()]}")
    print(f"straight-through: {attend.attention(query, key)[0, 0].tolist()}")
