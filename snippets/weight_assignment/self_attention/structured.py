"""Structured self-attentive embedding: r learned queries read a sentence, and a penalty keeps them apart.

Paper: Zhouhan Lin, Minwei Feng, Cicero Nogueira dos Santos, Mo Yu, Bing Xiang, Bowen Zhou, Yoshua Bengio,
"A Structured Self-attentive Sentence Embedding", ICLR 2017, arXiv 1703.03130 (section 2).
Code: hantek/SelfAttentiveSentEmbed d3f8b79, util_layers.py and semlp_rate_l2_dpout.py.
Differs: this is the attention and its penalty; the bidirectional LSTM before them and the classifier behind
them are left to the reader. `bias=True` adds the biases of the released code. The penalty is the paper's, a
number per sentence; the released code takes a mean over pairs of tokens instead. Start values are those of
`nn.Linear`; the released code has Glorot's, and biases of zero.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class StructuredSelfAttention(nn.Module):
    """Attention pooling with several hops.

    g(x) = A = softmax(W_s2 tanh(W_s1 H^T)) over the tokens; f(g, x) = A H, with H the states of a sentence.
    Each row of A, a hop, is one distribution over the tokens. The queries, the rows of W_s2, are constants.

    Args:
        embed_dim: width D of a state; 2 d_h for a bidirectional LSTM whose directions are concatenated.
        attention_dim: number d_a of hidden units.
        hops: number r of rows that are read.
        bias: whether both layers have biases. That of the second is idle: a softmax does not see it.

    Shape:
        - x: (B, T, D), the states H
        - mask: (B, T), bool, True = real token, may be attended; None = all are real
        - attention(x, mask): (B, r, T), each row sums to one over the real tokens, zero elsewhere
        - forward(x, mask): (B, r, D); zeros for a sentence without real tokens

    Raises:
        ValueError: a size is below 1, `x` is not (B, T, D), or `mask` is not (B, T).
        TypeError: `mask` is not bool.

    At the sizes of the released code attention has few parameters, whatever the length:

    >>> sum(parameter.numel() for parameter in StructuredSelfAttention(600).parameters())
    220500

    One distribution per hop, over the real tokens alone:

    >>> block, (x, mask) = example()
    >>> weights = block.attention(x, mask)
    >>> (weights > 0).sum(dim=2).tolist(), torch.allclose(weights.sum(dim=2), torch.ones(2, 4))
    ([[9, 9, 9, 9], [8, 8, 8, 8]], True)

    Padding changes nothing, not even if it is infinite:

    >>> padded = x.masked_fill(~mask[..., None], torch.inf)
    >>> torch.allclose(block(padded, mask)[1], block(x[1:, :8])[0], atol=1e-6)
    True
    """

    def __init__(self, embed_dim: int, attention_dim: int = 350, hops: int = 30, bias: bool = False) -> None:
        super().__init__()
        if embed_dim < 1 or attention_dim < 1 or hops < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, attention_dim {attention_dim} and hops {hops} must be at least 1"
            )
        self.W_s1 = nn.Linear(embed_dim, attention_dim, bias=bias)
        self.W_s2 = nn.Linear(attention_dim, hops, bias=bias)

    def attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x) = A, one row per hop: (B, T, D) -> (B, r, T)."""
        return self._weights(_real(x, mask), mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x) = A H, one vector per hop: (B, T, D) -> (B, r, D)."""
        states = _real(x, mask)
        return self._weights(states, mask) @ states

    def _weights(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Return softmax(W_s2 tanh(W_s1 H^T)) over the real tokens."""
        scores: Tensor = self.W_s2(self.W_s1(states).tanh()).mT  # (B, r, T)
        if mask is None:
            return scores.softmax(dim=2)
        real = mask[:, None]  # (B, 1, T)
        scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=2) * real  # the product empties sentences without real tokens


def _real(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the states with zeros for padding, where even NaN may have stood: (B, T, D) -> (B, T, D)."""
    if x.dim() != 3:
        raise ValueError(f"x {tuple(x.shape)} must be (B, T, D)")
    if mask is None:
        return x
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask {tuple(mask.shape)} must be (B, T) = {tuple(x.shape[:2])}")
    return x.masked_fill(~mask[..., None], 0.0)


def penalty(weights: Tensor) -> Tensor:
    """Return ||A A^T - I||_F^2 for each sentence: (B, r, T) -> (B).

    Raises:
        ValueError: the weights are not (B, r, T).

    It is 0 if and only if every hop reads a single token and no two read the same:

    >>> penalty(torch.eye(3, 5)[None])
    tensor([0.])

    Two hops on one token of six cost r (r - 1) = 2, two hops spread evenly 13 / 9:

    >>> penalty(torch.stack([torch.eye(6)[[4, 4]], torch.full((2, 6), 1 / 6)]))
    tensor([2.0000, 1.4444])
    """
    if weights.dim() != 3:
        raise ValueError(f"weights {tuple(weights.shape)} must be (B, r, T)")
    overlap = weights @ weights.mT  # (B, r, r)
    identity = torch.eye(overlap.shape[1], dtype=overlap.dtype, device=overlap.device)
    return (overlap - identity).square().sum(dim=(1, 2))


def example(
    B: int = 2, T: int = 9, D: int = 12, d_a: int = 10, hops: int = 4
) -> tuple[StructuredSelfAttention, tuple[Tensor, Tensor]]:
    """Return a seeded block, B sentences of states (B, T, D) and their mask: lengths T, T - 1, ..."""
    torch.manual_seed(0)
    lengths = (T - torch.arange(B)).clamp(min=1)
    mask = torch.arange(T) < lengths[:, None]
    return StructuredSelfAttention(D, d_a, hops).eval(), (torch.randn(B, T, D), mask)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    block, (x, mask) = example(**sizes)
    d_a, hops = block.W_s1.out_features, block.W_s2.out_features
    return {
        "without_mask": (block, (x,)),
        "bias": (StructuredSelfAttention(x.shape[2], d_a, hops, bias=True).eval(), (x, mask)),
    }


if __name__ == "__main__":
    block, (x, mask) = example()
    weights = block.attention(x, mask)
    print(f"input {tuple(x.shape)}, weights {tuple(weights.shape)}, output {tuple(block(x, mask).shape)}")
    print("penalty", " ".join(f"{number:.3f}" for number in penalty(weights)))
