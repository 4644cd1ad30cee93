"""Additive attention: a small network compares the decoder's last state with every encoder state.

Paper: Dzmitry Bahdanau, Kyunghyun Cho, Yoshua Bengio, "Neural Machine Translation by Jointly Learning to
Align and Translate", ICLR 2015, arXiv 1409.0473 (sections 3.1 and A.1.2).
Code: lisa-groundhog/GroundHog 4d2433b, experiments/nmt/encdec.py (RecurrentLayerWithSearch).
Differs: only the alignment is here, without encoder and decoder; the widths are free; a mask leaves padding
out. Start values are those of `nn.Linear`; in the paper W_a and U_a start with deviation 0.001, v_a at zero.
SPDX-License-Identifier: MIT
"""

import torch
from torch import Tensor, nn


class AdditiveAttention(nn.Module):
    """Additive attention for one step of a decoder.

    e_j = v_a^T tanh(W_a s + U_a h_j) with the state s = s_{t-1} before the step and the states h_j of the
    encoder, called annotations; g(x) = softmax(e); f(g, x) = c = sum_j g_j h_j, the context of the step.

    Args:
        query_dim: width d_s of the decoder's state.
        key_dim: width d_h of the annotations; those of a bidirectional encoder have both directions.
        hidden_dim: number d_a of hidden units.

    Shape:
        - state: (B, d_s)
        - source: (B, S, d_h)
        - mask: bool (B, S), True = may be attended, that is True at real tokens and False at padding
        - projected: (B, S, d_a), the result of `project(source)`; without it, it is computed anew
        - attention(...): (B, S); weights are not negative and sum to one over S
        - forward(...): (B, d_h)

    A sentence without any real token gets weights and a context of zero.

    Raises:
        ValueError: a width is below 1, `state` and `source` differ in their batch, or `projected` or `mask`
            does not fit.
        TypeError: `mask` is not bool.

    Without an opinion (v_a = 0) the context is the mean over the real tokens, of which the last sentence of
    the example has 5 out of 7:

    >>> layer, (state, source, mask) = example()
    >>> _ = nn.init.zeros_(layer.v_a.weight)
    >>> [round(weight, 3) for weight in layer.attention(state, source, mask)[-1].tolist()]
    [0.2, 0.2, 0.2, 0.2, 0.2, 0.0, 0.0]
    >>> torch.allclose(layer(state, source, mask)[-1], source[-1, :5].mean(dim=0), atol=1e-6)
    True

    tanh bounds the scores: none exceeds the sum of |v_a|, however large the annotations are.

    >>> layer, (state, source, mask) = example()
    >>> bound = layer.v_a.weight.abs().sum()
    >>> weights = layer.attention(state, 1e6 * source)
    >>> bool((weights.amax(dim=1) / weights.amin(dim=1)).log().max() <= 2 * bound)
    True
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int) -> None:
        super().__init__()
        for name, width in (("query_dim", query_dim), ("key_dim", key_dim), ("hidden_dim", hidden_dim)):
            if width < 1:
                raise ValueError(f"{name} {width} must be at least 1")
        self.W_a = nn.Linear(query_dim, hidden_dim, bias=False)
        self.U_a = nn.Linear(key_dim, hidden_dim, bias=False)
        self.v_a = nn.Linear(hidden_dim, 1, bias=False)

    def project(self, source: Tensor) -> Tensor:
        """Return U_a h_j, the half that does not depend on the step: (B, S, d_h) -> (B, S, d_a).

        A decoder calls this once per sentence and passes the result to each step.
        """
        projected: Tensor = self.U_a(source)
        return projected

    def attention(
        self, state: Tensor, source: Tensor, mask: Tensor | None = None, projected: Tensor | None = None
    ) -> Tensor:
        """Return g(x), how much of each annotation is read in this step: (B, S)."""
        key_dim = self.U_a.in_features
        if source.dim() != 3 or source.shape[2] != key_dim or state.shape[:-1] != source.shape[:1]:
            raise ValueError(
                f"state {tuple(state.shape)} and source {tuple(source.shape)} must be (B, d_s) and "
                f"(B, S, d_h) with the same B and d_h = {key_dim}"
            )
        asked = self.W_a(state)[:, None]  # (B, 1, d_a)
        projected = self.project(source) if projected is None else projected  # (B, S, d_a)
        shape = (*source.shape[:2], asked.shape[2])
        if projected.shape != shape:
            raise ValueError(f"projected {tuple(projected.shape)} must be (B, S, d_a) = {shape}")
        hidden = torch.tanh(asked + projected)  # (B, S, d_a)
        scores: Tensor = self.v_a(hidden).squeeze(-1)  # (B, S)
        if mask is None:
            return scores.softmax(dim=1)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        if mask.shape != scores.shape:
            raise ValueError(f"mask {tuple(mask.shape)} must be (B, S) = {tuple(scores.shape)}")
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=1).masked_fill(~mask, 0.0)  # the last step empties rows without a token

    def forward(
        self, state: Tensor, source: Tensor, mask: Tensor | None = None, projected: Tensor | None = None
    ) -> Tensor:
        """Return f(g(x), x), the context of this step: (B, d_h)."""
        weights = self.attention(state, source, mask, projected)  # (B, S)
        return (weights[:, None] @ source).squeeze(1)  # (B, d_h)


def example(
    B: int = 2, S: int = 7, d_s: int = 6, d_h: int = 8, d_a: int = 10
) -> tuple[AdditiveAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a seeded layer and its inputs: states, annotations and a mask; the last sentence has padding."""
    torch.manual_seed(0)
    state, source = torch.randn(B, d_s), torch.randn(B, S, d_h)
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[-1, S - S // 3 :] = False
    return AdditiveAttention(d_s, d_h, d_a).eval(), (state, source, mask)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (state, source, mask) = example(**sizes)
    projected = layer.project(source).detach()
    return {
        "without_mask": (layer, (state, source)),
        "projected": (layer, (state, source, mask, projected)),
    }


if __name__ == "__main__":
    layer, (state, source, mask) = example()
    context = layer(state, source, mask)
    print(f"state {tuple(state.shape)}, source {tuple(source.shape)}, context {tuple(context.shape)}")
    for sentence, weights in enumerate(layer.attention(state, source, mask).tolist()):
        print(f"sentence {sentence}: weights {[round(weight, 3) for weight in weights]}")
