"""Query, key, value: score every key against the query, turn scores into weights, read the values.

Paper: Xipeng Qiu, "Neural Networks and Deep Learning" (in Chinese), 2020, chapter 8; equations 8.1 to 8.10
in the draft of 2019.
Scores: additive from Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and
Translate", ICLR 2015, arXiv 1409.0473; dot and general (bilinear) from Luong, Pham, Manning, "Effective
Approaches to Attention-based Neural Machine Translation", EMNLP 2015, arXiv 1508.04025; scaled dot from
Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762.
Code: lmthang/nmt.matlab 32f8564, code/layers/attnLayerForward.m (dot, bilinear, additive with an identity).
Differs: rows are vectors here, columns in the book; no score has a bias; start values are those of
`nn.Linear`, which Luong draws within 0.1. A dot product has a fused kernel,
`F.scaled_dot_product_attention`; this file stores the scores, so that any function can be the score.
SPDX-License-Identifier: MIT
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Score = Callable[[Tensor, Tensor], Tensor]
"""(B, T, d_q), (B, S, d_k) -> scores (B, T, S)."""


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Score q.k: (B, T, d), (B, S, d) -> (B, T, S), at least float32. Its variance grows like d."""
    scaled = scaled_dot(query, key)  # float16 ends at 65504
    return scaled.to(torch.promote_types(scaled.dtype, torch.float32)) * math.sqrt(key.shape[-1])


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """Score q.k / sqrt(d): (B, T, d), (B, S, d) -> (B, T, S). Its variance does not depend on d."""
    return query / math.sqrt(key.shape[-1]) @ key.mT


class Bilinear(nn.Module):
    """Score q^T W k, Luong's "general": any two widths, and not symmetric in q and k.

    Args:
        query_dim: width d_q of the queries.
        key_dim: width d_k of the keys.

    Raises:
        ValueError: a width is below 1.
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        _at_least_one(query_dim=query_dim, key_dim=key_dim)
        self.W = nn.Linear(query_dim, key_dim, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, T, d_q), (B, S, d_k) -> (B, T, S)."""
        return dot(self.W(query), key)


class Additive(nn.Module):
    """Score v^T tanh(W_q q + W_k k), Bahdanau's small network; Luong's "concat" is the same function.

    Args:
        query_dim: width d_q of the queries.
        key_dim: width d_k of the keys.
        hidden_dim: number d_a of hidden units; a (B, T, S, d_a) tensor is stored.

    Raises:
        ValueError: a width is below 1.
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int) -> None:
        super().__init__()
        _at_least_one(query_dim=query_dim, key_dim=key_dim, hidden_dim=hidden_dim)
        self.W_q = nn.Linear(query_dim, hidden_dim, bias=False)
        self.W_k = nn.Linear(key_dim, hidden_dim, bias=False)
        self.v = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, T, d_q), (B, S, d_k) -> (B, T, S)."""
        pairs = self.W_q(query)[:, :, None] + self.W_k(key)[:, None]  # (B, T, S, d_a)
        scores: Tensor = self.v(pairs.tanh()).squeeze(-1)  # (B, T, S)
        return scores


def weigh(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Turn scores into weights by a softmax over the keys, the last axis: (B, T, S) -> (B, T, S).

    `mask` is bool, True = may be attended, and has three dimensions that broadcast to (B, T, S). A query that
    may attend to nothing gets weights of zero.

    Raises:
        TypeError: `mask` is not bool.
        ValueError: `mask` has another number of dimensions than the scores, or does not broadcast to them.

    >>> scores = torch.tensor([[[0.0, math.log(3), 9.0]]])
    >>> weigh(scores, torch.tensor([[[True, True, False]]]))
    tensor([[[0.2500, 0.7500, 0.0000]]])
    """
    if mask is None:
        return scores.softmax(dim=-1)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    fits = all(n in (1, full) for n, full in zip(mask.shape, scores.shape, strict=False))
    if mask.dim() != scores.dim() or not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = "
            f"{tuple(scores.shape)}; (T, S) is passed as mask[None], padding (B, S) as padding[:, None]"
        )
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key


def read(weights: Tensor, value: Tensor) -> Tensor:
    """Return the weighted mean of the values for each query: (B, T, S), (B, S, d_v) -> (B, T, d_v)."""
    return weights.to(value.dtype) @ value


class Attention(nn.Module):
    """Attention in three stages: `score`, `weigh`, `read`.

    g(x) = softmax(s(q, k_1), ..., s(q, k_S)); f(g, x) = sum of g_i v_i.

    Args:
        score: stage one, a function or module (query, key) -> scores.

    Shape:
        - query: (B, T, d_q)
        - key: (B, S, d_k)
        - value: (B, S, d_v); without it the keys are read (the book's plain mode)
        - mask: bool, True = may be attended, three dimensions that broadcast to (B, T, S); padding (B, S) is
          passed as `padding[:, None]`
        - attention(query, key): (B, T, S); weights are not negative and sum to one over S
        - forward(query, key): (B, T, d_v)

    Raises:
        TypeError: `mask` is not bool.
        ValueError: query, key, value or mask do not fit each other.

    A query of zeros has no preference, so a dot product reads the mean of the values:

    >>> _, (_, key, value) = example()
    >>> output = Attention(dot)(torch.zeros(2, 1, 6), key, value)
    >>> torch.allclose(output, value.mean(dim=1, keepdim=True), atol=1e-6)
    True

    Adding the same number to all scores changes no weight:

    >>> attention, inputs = example()
    >>> shifted = Attention(lambda query, key: attention.score(query, key) + 5)
    >>> torch.allclose(shifted(*inputs), attention(*inputs), atol=1e-6)
    True
    """

    def __init__(self, score: Score) -> None:
        super().__init__()
        self.score = score

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x), the weights: (B, T, S). `value` is not used: the arguments are those of forward."""
        if query.dim() != 3 or key.dim() != 3 or query.shape[0] != key.shape[0]:
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, T, d_q) and (B, S, d_k) "
                "with the same B"
            )
        return weigh(self.score(query, key), mask).to(query.dtype)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return f(g(x), x), what each query reads: (B, T, d_v)."""
        value = key if value is None else value
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, S, d_v) with B and S of key {tuple(key.shape)}"
            )
        return read(self.attention(query, key, mask=mask), value)


def _at_least_one(**widths: int) -> None:
    for name, width in widths.items():
        if width < 1:
            raise ValueError(f"{name} {width} must be at least 1")


def example(
    B: int = 2, T: int = 3, S: int = 5, d_q: int = 8, d_k: int = 6, d_v: int = 4, d_a: int = 7
) -> tuple[Attention, tuple[Tensor, Tensor, Tensor]]:
    """Return seeded additive attention and its inputs: queries, keys and values of different widths."""
    torch.manual_seed(0)
    inputs = torch.randn(B, T, d_q), torch.randn(B, S, d_k), torch.randn(B, S, d_v)
    return Attention(Additive(d_q, d_k, d_a)).eval(), inputs


def variants(**sizes: int) -> dict[str, tuple[Attention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    attention, (query, key, value) = example(**sizes)
    B, T, d_q = query.shape
    S, d_k = key.shape[1:]
    bilinear, mask = Bilinear(d_q, d_k), torch.rand(B, T, S) > 0.3
    mask[:, 0] = False
    return {
        "dot": (Attention(dot).eval(), (torch.randn(B, T, d_k), key, value)),
        "scaled_dot": (Attention(scaled_dot).eval(), (torch.randn(B, T, d_k), key, value)),
        "bilinear": (Attention(bilinear).eval(), (query, key, value)),
        "keys_are_read": (attention, (query, key)),
        "masked": (attention, (query, key, value, mask)),
    }


if __name__ == "__main__":
    attention, (query, key, value) = example()
    scores = attention.score(query, key)
    weights = weigh(scores)
    print(f"score: {tuple(scores.shape)}, first query {[round(s, 2) for s in scores[0, 0].tolist()]}")
    print(f"weigh: {tuple(weights.shape)}, first query {[round(w, 2) for w in weights[0, 0].tolist()]}")
    print(f"read:  {tuple(read(weights, value).shape)}")
