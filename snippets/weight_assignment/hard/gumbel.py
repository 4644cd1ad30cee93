"""Gumbel-softmax attention: noise on the scores draws one key, a softmax makes the draw differentiable.

Paper: Eric Jang, Shixiang Gu, Ben Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017,
arXiv 1611.01144. The same distribution: Maddison, Mnih, Teh, "The Concrete Distribution", ICLR 2017,
arXiv 1611.00712. Straight-through: Bengio, Léonard, Courville, arXiv 1308.3432, 2013.
Differs: the papers treat any categorical variable; here it is the choice of a key, scored by q^T W k. Noise
is -log of an exponential variable, which has the same distribution as -log(-log u). In eval mode the
likeliest key is read instead of a sample. A query without an allowed key reads zeros.
"""

import torch
from torch import Tensor, nn


def gumbel_softmax(
    scores: Tensor, temperature: float, hard: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Draw weights y = softmax((scores + noise) / temperature) over the last axis, with Gumbel noise.

    The largest entry of y is entry i with probability softmax(scores)_i, at any temperature (Gumbel-max).
    With `hard` the result is one-hot at that entry and has the gradient of y (straight-through).

    Args:
        scores: (..., S), logarithms of probabilities up to a constant; not the probabilities themselves.
        temperature: above 0; low is nearly one-hot, high nearly uniform.
        hard: whether the result is one-hot.
        mask: bool, True = may be drawn, broadcasts to the scores.

    >>> _ = torch.manual_seed(0)
    >>> scores = torch.tensor([0.6, 0.3, 0.1]).log()
    >>> draws = gumbel_softmax(scores.expand(100_000, 3), temperature=1.0, hard=True)
    >>> [round(share, 2) for share in draws.mean(0).tolist()]
    [0.6, 0.3, 0.1]
    """
    noise = -torch.empty_like(scores).exponential_().log()
    soft = _softmax((scores + noise) / temperature, mask)
    return _one_hot(soft, mask) - soft.detach() + soft if hard else soft


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
        - mask: bool, True = may be attended, broadcasts to (B, T, S); padding (B, S) is `padding[:, None]`
        - attention(query, key): (B, T, S); sums to one over S
        - forward(query, key, value): (B, T, d_v)

    Raises:
        ValueError: a width is below 1, or `temperature` is not above 0.

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
        """Return q^T W k, the logits of the policy: (B, T, d_q), (B, S, d_k) -> (B, T, S)."""
        scores: Tensor = self.W(query) @ key.mT
        return scores

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g, new in each call of train mode: (B, T, S). `value` is not used."""
        scores = self.scores(query, key)
        if self.training:
            return gumbel_softmax(scores, self.temperature, self.straight_through, mask)
        return _one_hot(_softmax(scores, mask), mask)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g, v), what each query reads: (B, T, d_v)."""
        return self.attention(query, key, mask=mask) @ value


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores.softmax(-1)
    _check(mask, scores)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0)  # empties rows without a key


def _one_hot(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Return one at the largest weight of each row and zero elsewhere; rows without a key stay empty."""
    hard = torch.zeros_like(weights).scatter(-1, weights.argmax(-1, keepdim=True), 1.0)
    return hard if mask is None else hard.masked_fill(~mask, 0.0)


def _check(mask: Tensor, scores: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
    if mask.dim() > scores.dim() or not fits:
        raise ValueError(f"mask {tuple(mask.shape)} does not broadcast to the scores {tuple(scores.shape)}")


def example(
    B: int = 2, T: int = 3, S: int = 5, d_q: int = 8, d_k: int = 6, d_v: int = 4
) -> tuple[GumbelAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a seeded block and its inputs: queries, keys and values of different widths."""
    torch.manual_seed(0)
    inputs = torch.randn(B, T, d_q), torch.randn(B, S, d_k), torch.randn(B, S, d_v)
    return GumbelAttention(d_q, d_k).eval(), inputs


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
