"""Cross-attention: the tokens of one sequence ask, those of another are read, and are projected only once.

Paper: Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez,
Lukasz Kaiser, Illia Polosukhin, "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762
(section 3.2.3, encoder-decoder attention). Gated: Jean-Baptiste Alayrac et al., "Flamingo: a Visual Language
Model for Few-Shot Learning", NeurIPS 2022, arXiv 2204.14198.
Code: huggingface/transformers 5.23.0, models/bart/modeling_bart.py (BartAttention) and
models/mllama/modeling_mllama.py (MllamaCrossAttentionDecoderLayer).
Differs: the source may have a width of its own, as with `kdim` and `vdim` of torch's module. The gated form
is the residual sum alone, without the norms and the gated feed-forward network around it. Start values are
those of `nn.Linear`.
SPDX-License-Identifier: MIT
"""

import math
import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Source(NamedTuple):
    """A source that was read: the same keys and values for every token that will ask.

    Attributes:
        keys, values: (B, heads, S, d).
        mask: (B, 1, 1, S), bool; None if every token of the source may be attended.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class CrossAttention(nn.Module):
    """Multi-head attention of the tokens `x` to the tokens of a source.

    g(x, c) = softmax(Q K^T / sqrt(d)) per head, Q from x, K and V from the source c, d = E / heads;
    f(g, c) = concat(g V) W_O. `start` computes K and V, `step` the rest for any number of tokens.

    Args:
        embed_dim: width E of the tokens that ask, and of the output.
        source_dim: width C of the source.
        num_heads: number of heads; divides E.
        bias: whether the four projections have biases.

    Shape:
        - x: (B, T, E)
        - source: (B, S, C)
        - mask: (B, S), bool, True = may be attended; False at padding of the source
        - attention(x, source): (B, heads, T, S); zeros if the source is padding alone
        - forward(x, source): (B, T, E)
        - start(source): a `Source`
        - step(x, state): (B, T, E) and the state, which stays as it is

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: a size is below 1, `num_heads` does not divide E, the shapes of `x`, `source` and `mask`
            do not fit, or `state` is not one of this layer for `x` and its dtype.
        TypeError: `mask` is not bool.

    The source is a set: in another order it reads the same.

    >>> layer, (x, source) = example()
    >>> order = torch.randperm(source.shape[1])
    >>> torch.allclose(layer(x, source[:, order]), layer(x, source), atol=1e-6)
    True

    No token sees another one that asks, so they may come in any pieces:

    >>> state = layer.start(source)
    >>> pieces = [layer.step(piece, state)[0] for piece in x.split(2, dim=1)]
    >>> torch.allclose(torch.cat(pieces, dim=1), layer(x, source), atol=1e-6)
    True

    With one token to read there is nothing to choose: all who ask get the same.

    >>> y = layer(x, source[:, :1])
    >>> torch.allclose(y, y[:, :1].expand_as(y), atol=1e-6)
    True
    """

    def __init__(self, embed_dim: int, source_dim: int, num_heads: int, bias: bool = True) -> None:
        super().__init__()
        if embed_dim < 1 or source_dim < 1 or num_heads < 1:
            raise ValueError(
                f"embed_dim {embed_dim}, source_dim {source_dim} and num_heads {num_heads} must be at least 1"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.num_heads = operator.index(num_heads)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = nn.Linear(source_dim, embed_dim, bias=bias)
        self.v_proj = nn.Linear(source_dim, embed_dim, bias=bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    def attention(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g, the weights of each head: (B, heads, T, S)."""
        _check(x, source)
        q, (k, _, allowed) = self._split(self.q_proj(x)), self.start(source, mask)
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (B, heads, T, S)
        if allowed is None:
            return scores.softmax(dim=-1)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~allowed, 0.0)  # the last step empties rows without a key

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g, source): (B, T, E) and (B, S, C) -> (B, T, E)."""
        _check(x, source)
        y, _ = self.step(x, self.start(source, mask))
        return y

    def start(self, source: Tensor, mask: Tensor | None = None) -> Source:
        """Project the source, once for all tokens to come."""
        if source.dim() != 3:
            raise ValueError(f"source {tuple(source.shape)} must be (B, S, C)")
        if mask is not None and mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        if mask is not None and mask.shape != source.shape[:2]:
            raise ValueError(f"mask {tuple(mask.shape)} must be (B, S) = {tuple(source.shape[:2])}")
        k = self._split(self.k_proj(source))  # (B, heads, S, d)
        v = self._split(self.v_proj(source))  # (B, heads, S, d)
        return Source(k, v, None if mask is None else mask[:, None, None])

    def step(self, x: Tensor, state: Source) -> tuple[Tensor, Source]:
        """Read the source for the next tokens, by the fused kernel, which never stores the weights."""
        if x.dim() != 3:
            raise ValueError(f"x {tuple(x.shape)} must be (B, T, E)")
        q = self._split(self.q_proj(x))  # (B, heads, T, d)
        _check_state(state, q)
        heads = F.scaled_dot_product_attention(q, state.keys, state.values, state.mask)  # (B, heads, T, d)
        y: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, T, E)
        return y, state

    def _split(self, x: Tensor) -> Tensor:
        B, N, E = x.shape
        return x.reshape(B, N, self.num_heads, E // self.num_heads).transpose(1, 2)  # (B, heads, N, d)


class GatedCrossAttention(CrossAttention):
    """x + tanh(alpha) * cross-attention; alpha = 0 at the start, so that a trained network is not disturbed.

    Args:
        embed_dim, source_dim, num_heads, bias: as in `CrossAttention`.

    Shape:
        - attention(x, source): (B, heads, T, S), whatever the gate
        - forward(x, source), step(x, state): as in `CrossAttention`

    Second derivatives and forward mode need the kernel that `CrossAttention` names, by `sdpa_kernel`.

    Raises:
        ValueError: as in `CrossAttention`.
        TypeError: `mask` is not bool.

    >>> _, (x, source) = example()
    >>> torch.equal(GatedCrossAttention(24, 20, 4)(x, source), x)
    True
    """

    def __init__(self, embed_dim: int, source_dim: int, num_heads: int, bias: bool = True) -> None:
        super().__init__(embed_dim, source_dim, num_heads, bias)
        self.alpha = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Close the gate."""
        nn.init.zeros_(self.alpha)

    def step(self, x: Tensor, state: Source) -> tuple[Tensor, Source]:
        """Add to the tokens what they read, as far as the gate is open."""
        y, state = super().step(x, state)
        return x + self.alpha.tanh() * y, state


def _check(x: Tensor, source: Tensor) -> None:
    """Refuse what would broadcast."""
    if x.dim() != 3 or source.dim() != 3 or x.shape[0] != source.shape[0]:
        raise ValueError(
            f"x {tuple(x.shape)} and source {tuple(source.shape)} must be (B, T, E) and (B, S, C) "
            "with the same B"
        )


def _check_state(state: Source, q: Tensor) -> None:
    """Refuse a state that cannot be of the layer with these queries (B, heads, T, d)."""
    if not isinstance(state, Source):
        raise ValueError(f"state {type(state).__name__} must be a Source")
    B, heads, _, d = q.shape
    S = state.keys.shape[2] if state.keys.dim() == 4 else 0
    for name, kept in (("keys", state.keys), ("values", state.values)):
        if kept.shape != (B, heads, S, d) or kept.dtype != q.dtype:
            raise ValueError(
                f"state {name} {tuple(kept.shape)} of {kept.dtype} must be (B, heads, S, d) = "
                f"{(B, heads, S, d)} of {q.dtype}"
            )


def example(
    B: int = 2, T: int = 7, S: int = 11, E: int = 24, C: int = 20, heads: int = 4
) -> tuple[CrossAttention, tuple[Tensor, Tensor]]:
    """Return a seeded layer and its input: B times T tokens with E features, and S to read, with C."""
    torch.manual_seed(0)
    return CrossAttention(E, C, heads).eval(), (torch.randn(B, T, E), torch.randn(B, S, C))


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (x, source) = example(**sizes)
    E, C, heads = x.shape[2], source.shape[2], layer.num_heads
    real = torch.arange(source.shape[1]).expand(source.shape[:2]) % 4 < 3
    gated = GatedCrossAttention(E, C, heads).eval()
    nn.init.constant_(gated.alpha, 0.5)
    return {
        "mask": (layer, (x, source, real)),
        "gated": (gated, (x, source)),
        "without_bias": (CrossAttention(E, C, heads, bias=False).eval(), (x, source)),
    }


if __name__ == "__main__":
    layer, (x, source) = example()
    state = layer.start(source)
    print(f"source {tuple(source.shape)}, keys that are kept {tuple(state.keys.shape)}")
    y = torch.cat([layer.step(token, state)[0] for token in x.split(1, dim=1)], dim=1)
    print(f"output {tuple(y.shape)}, differs from one pass by {(y - layer(x, source)).abs().max():.0e}")
    for head, row in enumerate(layer.attention(x, source)[0, :, 0]):
        print(f"head {head}: token 0 reads most from source token {row.argmax()} (weight {row.max():.3f})")
