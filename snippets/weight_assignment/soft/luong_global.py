"""Global attention: each decoder state reads the whole source by one of three scores and is joined with it.

Paper: Minh-Thang Luong, Hieu Pham, Christopher D. Manning, "Effective Approaches to Attention-based Neural
Machine Translation", EMNLP 2015, arXiv 1508.04025.
Differs: `concat` is the paper's, with a matrix on the source side too; the released code has none there.
The paper's fourth score, `location`, has no keys and is left out. Source and target may differ in width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCORES = ("dot", "general", "concat")


class GlobalAttention(nn.Module):
    """Luong's global attention with its attentional vector.

    Scores: dot h_t.h_s; general h_t^T W_a h_s; concat v_a^T tanh(W_a [h_t; h_s]).
    g(x) = softmax(scores) over the source; f(g, x) = tanh(W_c [c_t; h_t]) with c_t = sum_s g_ts h_s.

    Args:
        target_dim: width d_t of the decoder's states h_t, those after the recurrent step.
        source_dim: width d_s of the encoder's states h_s.
        score: "dot", "general" or "concat"; concat has d_t hidden units.

    Shape:
        - target: (B, T, d_t); T = 1 for a decoder that goes step by step
        - source: (B, S, d_s)
        - mask: bool, True = may be attended, broadcasts to (B, T, S); padding (B, S), True at real tokens, is
          passed as `padding[:, None]`
        - attention(...): (B, T, S); weights are not negative and sum to one over S
        - forward(...): (B, T, d_t), the attentional vectors, each entry in (-1, 1)

    A target that may attend to nothing gets weights and a context of zero.

    Raises:
        ValueError: a width is below 1, `score` is unknown, "dot" is to compare different widths, or `mask`
            does not fit.
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

    def __init__(self, target_dim: int, source_dim: int, score: str = "general") -> None:
        super().__init__()
        if target_dim < 1 or source_dim < 1:
            raise ValueError(f"target_dim {target_dim} and source_dim {source_dim} must be at least 1")
        if score not in SCORES:
            raise ValueError(f"score {score!r} must be one of {', '.join(SCORES)}")
        if score == "dot" and target_dim != source_dim:
            raise ValueError(f"score 'dot' needs target_dim {target_dim} equal to source_dim {source_dim}")
        self.score = score
        if score == "general":
            self.W_a = nn.Linear(target_dim, source_dim, bias=False)  # holds the paper's W_a transposed
        elif score == "concat":
            self.W_a = nn.Linear(target_dim + source_dim, target_dim, bias=False)
            self.v_a = nn.Linear(target_dim, 1, bias=False)
        self.W_c = nn.Linear(source_dim + target_dim, target_dim, bias=False)

    def scores(self, target: Tensor, source: Tensor) -> Tensor:
        """Compare each target state with each source state: (B, T, d_t), (B, S, d_s) -> (B, T, S)."""
        if self.score != "concat":
            query: Tensor = target if self.score == "dot" else self.W_a(target)  # (B, T, d_s)
            return query @ source.mT
        W = self.W_a.weight  # (d_t, d_t + d_s), its first d_t columns are for the target
        of_target, of_source = F.linear(target, W[:, : len(W)]), F.linear(source, W[:, len(W) :])
        pairs = of_target[:, :, None] + of_source[:, None]  # (B, T, S, d_t)
        scores: Tensor = self.v_a(pairs.tanh()).squeeze(-1)  # (B, T, S)
        return scores

    def attention(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return g(x), the alignment: (B, T, S)."""
        scores = self.scores(target, source)
        if mask is None:
            return scores.softmax(dim=-1)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        fits = all(n in (1, full) for n, full in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
        if mask.dim() != 3 or not fits:
            raise ValueError(
                f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = "
                f"{tuple(scores.shape)}; padding (B, S) is passed as padding[:, None]"
            )
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a token

    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), the attentional vectors: (B, T, d_t)."""
        context = self.attention(target, source, mask) @ source  # (B, T, d_s)
        joined = torch.cat([context, target], dim=-1)  # (B, T, d_s + d_t)
        return torch.tanh(self.W_c(joined))


def example(
    B: int = 2, T: int = 4, S: int = 7, d_t: int = 6, d_s: int = 9
) -> tuple[GlobalAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a seeded layer and its inputs: states of both sides and a mask; the last source has padding."""
    torch.manual_seed(0)
    mask = torch.ones(B, 1, S, dtype=torch.bool)
    mask[-1, :, S - S // 3 :] = False
    return GlobalAttention(d_t, d_s).eval(), (torch.randn(B, T, d_t), torch.randn(B, S, d_s), mask)


if __name__ == "__main__":
    layer, (target, source, mask) = example()
    vectors = layer(target, source, mask)
    print(f"target {tuple(target.shape)}, source {tuple(source.shape)}, output {tuple(vectors.shape)}")
    for sentence, weights in enumerate(layer.attention(target, source, mask)[:, 0].tolist()):
        print(f"sentence {sentence}, first state: weights {[round(weight, 3) for weight in weights]}")
