"""Global attention: each decoder state reads the whole source by one of three scores and is joined with it.

Paper: Minh-Thang Luong, Hieu Pham, Christopher D. Manning, "Effective Approaches to Attention-based Neural
Machine Translation", EMNLP 2015, arXiv 1508.04025 (section 3.1).
Code: lmthang/nmt.matlab 32f8564, code/layers/attnLayerForward.m.
Differs: `concat` has a matrix on the source side too, as in the paper's formula; in its experiments and in
the released code that is the identity. The paper's fourth score, `location`, has no keys and is left out.
Source and target may differ in width. Start values are those of `nn.Linear`, not uniform in [-0.1, 0.1].
SPDX-License-Identifier: MIT
"""

import math

import torch
from torch import Tensor, nn

MODES = ("dot", "general", "concat")


class GlobalAttention(nn.Module):
    """Luong's global attention with its attentional vector.

    Scores: dot h_t.h_s; general h_t^T W_a h_s; concat v_a^T tanh(W_a [h_t; h_s]) with W_a [h_t; h_s] =
    W_t h_t + W_s h_s, so that each state is projected once and not once per pair.
    g(x) = softmax(scores) over the source; f(g, x) = tanh(W_c [c_t; h_t]) with c_t = sum_s g_ts h_s.

    Args:
        target_dim: width d_t of the decoder's states h_t, those after the recurrent step.
        source_dim: width d_s of the encoder's states h_s.
        mode: "dot", "general" or "concat"; concat has d_t hidden units.

    Shape:
        - target: (B, T, d_t); T = 1 for a decoder that goes step by step
        - source: (B, S, d_s)
        - mask: bool, True = may be attended; three dimensions that broadcast to (B, T, S). Padding (B, S),
          True at real tokens, is passed as `padding[:, None]`
        - attention(...): (B, T, S); weights are not negative and sum to one over S
        - forward(...): (B, T, d_t), the attentional vectors, each entry in (-1, 1)

    A target that may attend to nothing gets weights and a context of zero.

    Raises:
        ValueError: a width is below 1, `mode` is unknown, "dot" is to compare different widths, or the
            shapes of `target`, `source` and `mask` do not fit.
        TypeError: `mask` is not bool.

    With W_a = I the general score is the dot product:

    >>> _ = torch.manual_seed(0)
    >>> target, source = torch.randn(1, 3, 6), torch.randn(1, 5, 6)
    >>> general, dot = GlobalAttention(6, 6, "general"), GlobalAttention(6, 6, "dot")
    >>> _ = nn.init.eye_(general.W_a.weight)
    >>> torch.allclose(general.attention(target, source), dot.attention(target, source))
    True

    The context comes first in [c_t; h_t]. If W_c copies it, a source of ones is read as tanh(1):

    >>> _ = nn.init.eye_(dot.W_c.weight)
    >>> [round(entry, 4) for entry in dot(target, torch.ones(1, 5, 6))[0, 0, :3].tolist()]
    [0.7616, 0.7616, 0.7616]
    """

    def __init__(self, target_dim: int, source_dim: int, mode: str = "general") -> None:
        super().__init__()
        if target_dim < 1 or source_dim < 1:
            raise ValueError(f"target_dim {target_dim} and source_dim {source_dim} must be at least 1")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if mode == "dot" and target_dim != source_dim:
            raise ValueError(
                f"target_dim {target_dim} must be equal to source_dim {source_dim} in mode {mode!r}"
            )
        self.mode = mode
        if mode == "general":
            self.W_a = nn.Linear(target_dim, source_dim, bias=False)  # holds the paper's W_a transposed
        elif mode == "concat":
            self.W_t = nn.Linear(target_dim, target_dim, bias=False)
            self.W_s = nn.Linear(source_dim, target_dim, bias=False)
            self.v_a = nn.Linear(target_dim, 1, bias=False)
        self.W_c = nn.Linear(source_dim + target_dim, target_dim, bias=False)

    def scores(self, target: Tensor, source: Tensor) -> Tensor:
        """Compare each target state with each source state: (B, T, d_t), (B, S, d_s) -> (B, T, S).

        Dot and general are not bounded, so they come in float32 at least.
        """
        if target.dim() != 3 or source.dim() != 3 or target.shape[0] != source.shape[0]:
            raise ValueError(
                f"target {tuple(target.shape)} and source {tuple(source.shape)} must be (B, T, d_t) and "
                "(B, S, d_s) with the same B"
            )
        if self.mode == "concat":
            pairs = self.W_t(target)[:, :, None] + self.W_s(source)[:, None]  # (B, T, S, d_t)
            bounded: Tensor = self.v_a(pairs.tanh()).squeeze(-1)  # (B, T, S)
            return bounded
        query: Tensor = target if self.mode == "dot" else self.W_a(target)  # (B, T, d_s)
        root = math.sqrt(source.shape[2])  # a half type may hold the scores only after a division
        scores = (query / root) @ source.mT  # (B, T, S)
        return root * scores.to(torch.promote_types(scores.dtype, torch.float32))

    def attention(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the alignment: (B, T, S)."""
        scores = self.scores(target, source)
        if mask is None:
            return scores.softmax(dim=-1).to(target.dtype)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
        if mask.dim() != 3 or not fits:
            raise ValueError(
                f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = "
                f"{tuple(scores.shape)}; (T, S) is passed as mask[None], padding (B, S) as padding[:, None]"
            )
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # empties rows without a token
        return weights.to(target.dtype)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), the attentional vectors: (B, T, d_t)."""
        context = self.attention(target, source, mask) @ source  # (B, T, d_s)
        joined = torch.cat([context, target], dim=-1)  # (B, T, d_s + d_t)
        return torch.tanh(self.W_c(joined))


def example(
    B: int = 2, T: int = 4, S: int = 7, d_t: int = 6, d_s: int = 11
) -> tuple[GlobalAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a seeded layer and its inputs: states of both sides and a mask; the last source has padding."""
    torch.manual_seed(0)
    mask = torch.ones(B, 1, S, dtype=torch.bool)
    mask[-1, :, S - S // 3 :] = False
    return GlobalAttention(d_t, d_s).eval(), (torch.randn(B, T, d_t), torch.randn(B, S, d_s), mask)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, (target, source, mask) = example(**sizes)
    d_t, d_s = target.shape[2], source.shape[2]
    return {
        "dot": (GlobalAttention(d_s, d_s, "dot").eval(), (torch.randn(*target.shape[:2], d_s), source, mask)),
        "concat": (GlobalAttention(d_t, d_s, "concat").eval(), (target, source, mask)),
        "without_mask": (layer, (target, source)),
    }


if __name__ == "__main__":
    layer, (target, source, mask) = example()
    vectors = layer(target, source, mask)
    print(f"target {tuple(target.shape)}, source {tuple(source.shape)}, output {tuple(vectors.shape)}")
    for sentence, weights in enumerate(layer.attention(target, source, mask)[:, 0].tolist()):
        print(f"sentence {sentence}, first state: weights {[round(weight, 3) for weight in weights]}")
