"""Soft attention, plain and key-value: one query finds items by their keys and reads a mean of their values.

Paper: Xipeng Qiu, "Neural Networks and Deep Learning" (in Chinese), 2020, section 8.2, equations 8.1 to 8.10.
Differs: items are rows here, columns in the book. The score is the scaled dot product, one of the four in
the book. The query may be given or learned. The book has no mask.
SPDX-License-Identifier: MIT
"""

import math

import torch
from torch import Tensor, nn


class KeyValueAttention(nn.Module):
    """Pooling of a set by one query (section 8.2).

    g(x)_n = p(z = n | K, q) = softmax over n of q.k_n / sqrt(d_k), the chance that item n is chosen;
    f(g, x) = sum over n of g_n v_n = E[v_z], the value that such a choice gives on average.

    With values this is the key-value mode: keys say where to look, values what is found there. Without
    them the keys are read themselves, the plain mode.

    Args:
        key_dim: width d_k of a key, and of the query.

    Shape:
        - key: (B, S, d_k), any S
        - value: (B, S, d_v), any width; None = plain mode, the keys are read
        - query: (B, d_k); None = the learned query, the same for every set
        - mask: (B, S), bool, True = may be attended; None = all may be
        - attention(key): (B, S), not negative, sums to one; zeros if the mask allows nothing
        - forward(key, value): (B, d_v), or (B, d_k) in plain mode

    Raises:
        ValueError: `key_dim` is below 1, or `key`, `value`, `query` or `mask` does not fit the others.
        TypeError: `mask` is not bool.

    Plain mode is key = value:

    >>> block, (key, value) = example()
    >>> torch.equal(block(key), block(key, key))
    True

    The keys alone decide the weights, so values twice as large are read twice as large:

    >>> torch.allclose(block(key, 2 * value), 2 * block(key, value))
    True

    A long query leaves no doubt. The answer is then the value of one item, the one whose key fits best:

    >>> query = 1e4 * key[:, 3]
    >>> block.attention(key, query=query).argmax(dim=1)
    tensor([3, 3])
    >>> torch.allclose(block(key, value, query), value[:, 3])
    True
    """

    def __init__(self, key_dim: int) -> None:
        super().__init__()
        if key_dim < 1:
            raise ValueError(f"key_dim {key_dim} must be at least 1")
        self.query = nn.Parameter(torch.empty(key_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the learned query from a standard normal distribution."""
        nn.init.normal_(self.query)

    def attention(
        self,
        key: Tensor,
        value: Tensor | None = None,
        query: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return g(x): (B, S, d_k) -> (B, S). `value` is not used: the arguments are those of forward."""
        if key.dim() != 3 or key.shape[2] != self.query.shape[0]:
            raise ValueError(f"key {tuple(key.shape)} must be (B, S, d_k) with d_k = {self.query.shape[0]}")
        asked = self.query.expand(key.shape[0], -1) if query is None else query  # (B, d_k)
        if asked.shape != (key.shape[0], key.shape[2]):
            raise ValueError(
                f"query {tuple(asked.shape)} must be (B, d_k) with B and d_k of key {tuple(key.shape)}"
            )
        scaled = asked[:, :, None] / math.sqrt(key.shape[2])  # (B, d_k, 1)
        scores = (key @ scaled).squeeze(-1)  # (B, S)
        if mask is None:
            return scores.softmax(dim=1)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        if mask.shape != scores.shape:
            raise ValueError(f"mask {tuple(mask.shape)} must be (B, S) = {tuple(scores.shape)}")
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=1) * mask  # the product empties sets without an item

    def forward(
        self,
        key: Tensor,
        value: Tensor | None = None,
        query: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return f(g(x), x): (B, S, d_k), (B, S, d_v) -> (B, d_v)."""
        value = key if value is None else value
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, S, d_v) with B and S of key {tuple(key.shape)}"
            )
        weights = self.attention(key, query=query, mask=mask)  # (B, S)
        return (weights[:, None] @ value).squeeze(1)  # (B, d_v)


def example(
    B: int = 2, S: int = 5, d_k: int = 6, d_v: int = 4
) -> tuple[KeyValueAttention, tuple[Tensor, Tensor]]:
    """Return a seeded block with a learned query, and S keys (B, S, d_k) and values (B, S, d_v)."""
    torch.manual_seed(0)
    return KeyValueAttention(d_k).eval(), (torch.randn(B, S, d_k), torch.randn(B, S, d_v))


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (key, value) = example(**sizes)
    query = torch.randn(key.shape[0], key.shape[2])
    mask = torch.arange(key.shape[1]).expand(key.shape[:2]) % 3 < 2
    return {"plain": (block, (key,)), "masked_query": (block, (key, value, query, mask))}


if __name__ == "__main__":
    block, (key, value) = example()
    print("weights  ", " ".join(f"{weight:.2f}" for weight in block.attention(key)[0]))
    print(f"key-value {tuple(block(key, value).shape)}, plain {tuple(block(key).shape)}")
