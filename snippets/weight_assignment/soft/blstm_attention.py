"""BLSTM softmax attention: a learned query reads one vector from the states of a bidirectional LSTM.

Paper: Peng Zhou, Wei Shi, Jun Tian, Zhenyu Qi, Bingchen Li, Hongwei Hao, Bo Xu, "Attention-Based
Bidirectional Long Short-Term Memory Networks for Relation Classification", ACL 2016, P16-2034.
Differs: this is the BLSTM layer and the attention layer; word embeddings, dropout and the classifier are
left to the reader. The LSTM cell is that of torch, with its start values: no peephole connections, two
biases per gate. A mask keeps padding out of both directions.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class BLSTMAttention(nn.Module):
    """Attention pooling over a bidirectional LSTM.

    With H the states of the T tokens, each the sum of both directions:
    g(x) = softmax(w^T tanh(H)), one weight per token; f(g, x) = tanh(H g^T), one vector per sequence.

    The softmax runs over time, not over the hidden units, so that w is the only parameter of attention.
    Masked tokens are moved behind the real ones before each direction runs: they influence nothing,
    and the backward direction starts at the last real token. Any mask works, not only right padding.

    Args:
        embed_dim: width E of a token.
        hidden_dim: width d of a state; the directions are added, so it is also the width of the output.

    Shape:
        - x: (B, T, E)
        - mask: (B, T), bool, True = real token, may be attended; None = all are real
        - attention(x, mask): (B, T), sums to one over the real tokens, zero elsewhere
        - forward(x, mask): (B, d), each value in (-1, 1); zeros for a sequence without real tokens

    Raises:
        ValueError: `embed_dim` or `hidden_dim` is below 1, `x` is not (B, T, E), or `mask` is not (B, T).
        TypeError: `mask` is not bool.

    One distribution over time for each sequence, whatever its length:

    >>> block, (x, mask) = example()
    >>> weights = block.attention(x, mask)
    >>> (weights > 0).sum(1).tolist(), weights.sum(1).allclose(torch.ones(3))
    ([7, 5, 3], True)

    Padding changes nothing, neither its content nor its place:

    >>> alone = block(x[1:2, :5])
    >>> torch.allclose(block(x, mask)[1:2], alone, atol=1e-6)
    True
    >>> torch.allclose(block(x.roll(2, 1), mask.roll(2, 1))[1:2], alone, atol=1e-6)
    True

    With w = 0 the weights are equal and attention is the mean over the real tokens:

    >>> _ = nn.init.zeros_(block.score.weight)
    >>> print(block.attention(x, mask)[1])
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000, 0.0000, 0.0000],
           grad_fn=<SelectBackward0>)
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        if embed_dim < 1 or hidden_dim < 1:
            raise ValueError(f"embed_dim {embed_dim} and hidden_dim {hidden_dim} must be at least 1")
        self.forward_lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        self.score = nn.Linear(hidden_dim, 1, bias=False)  # w

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), one weight per token: (B, T, E) -> (B, T)."""
        mask = _checked(mask, x)
        return self._weights(self._states(x, mask), mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), one vector per sequence: (B, T, E) -> (B, d)."""
        mask = _checked(mask, x)
        states = self._states(x, mask)  # (B, T, d)
        pooled = self._weights(states, mask)[:, None] @ states  # (B, 1, d)
        return pooled.squeeze(1).tanh()  # (B, d)

    def _states(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return H: the states of both directions, added."""
        x = x.masked_fill(~mask[..., None], 0)
        backward = _run(self.backward_lstm, x.flip(1), mask.flip(1)).flip(1)
        return _run(self.forward_lstm, x, mask) + backward  # (B, T, d)

    def _weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return softmax(w^T tanh(H)) over the real tokens."""
        scores: Tensor = self.score(states.tanh()).squeeze(-1)  # (B, T)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(1) * mask  # (B, T)


def _run(lstm: nn.LSTM, x: Tensor, mask: Tensor) -> Tensor:
    """Run `lstm` over the real tokens in their order, then over the others: (B, T, E) -> (B, T, d)."""
    order = mask.logical_not().byte().argsort(dim=1, stable=True)  # (B, T)
    states: Tensor = lstm(x.gather(1, order[..., None].expand_as(x)))[0]  # (B, T, d)
    return states.gather(1, order.argsort(dim=1)[..., None].expand_as(states))


def _checked(mask: Tensor | None, x: Tensor) -> Tensor:
    """Return the mask, or one that keeps all tokens."""
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask {tuple(mask.shape)} must be (B, T) = {tuple(x.shape[:2])}")
    return mask


def example(B: int = 3, T: int = 7, E: int = 5, d: int = 4) -> tuple[BLSTMAttention, tuple[Tensor, Tensor]]:
    """Return a seeded block, B sequences (B, T, E) and their mask (B, T): lengths T, T - 2, T - 4, ..."""
    torch.manual_seed(0)
    lengths = (T - 2 * torch.arange(B)).clamp(min=1)
    mask = torch.arange(T) < lengths[:, None]
    return BLSTMAttention(E, d).eval(), (torch.randn(B, T, E), mask)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x, mask) = example(**sizes)
    return {"without_mask": (block, (x,)), "padded_left": (block, (x, mask.flip(1)))}


if __name__ == "__main__":
    block, (x, mask) = example()
    print(f"input {tuple(x.shape)}, output {tuple(block(x, mask).shape)}")
    for weights, real in zip(block.attention(x, mask), mask, strict=True):
        print(f"{int(real.sum())} real tokens, weights", " ".join(f"{weight:.2f}" for weight in weights))
