"""Score functions: six ways to say how well a query fits a key; softmax and reading are the same for all.

Paper: Minh-Thang Luong, Hieu Pham, Christopher D. Manning, "Effective Approaches to Attention-based Neural
Machine Translation", EMNLP 2015, arXiv 1508.04025 (dot, general, concat, location). Additive: Bahdanau, Cho,
Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", ICLR 2015, arXiv 1409.0473.
Scaled dot: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762.
Code: lmthang/nmt.matlab 32f8564, code/layers/attnLayerForward.m (dot, general, concat with an identity).
Differs: only the attention is here, without encoder and decoder. No score has a bias. Concat is computed as
it is written, with all pairs stored, to show what that costs; in Luong's runs and code its part for the keys
is the identity. Location refuses more keys than it has places, Luong ignores them. Start values are those of
`nn.Linear`; Luong draws them within 0.1.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
from torch import Tensor, nn

MODES = ("dot", "scaled_dot", "general", "additive", "concat", "location")


class ScoredAttention(nn.Module):
    """Attention with one of six scores s(q, k).

    dot         q.k                          query and key of one width
    scaled_dot  q.k / sqrt(d)                the same
    general     q^T W k                      also called bilinear
    additive    v^T tanh(W_q q + W_k k)      a perceptron with d_a hidden units
    concat      v^T tanh(W [q; k])           additive with W = [W_q W_k]
    location    row s of W q                 the place s of the key counts, not the key

    g(x) = softmax(s(q, k_1), ..., s(q, k_S)); f(g, x) = sum over s of g_s v_s.

    Args:
        mode: one of `MODES`.
        query_dim: width d_q of the queries.
        key_dim: width d_k of the keys, also where they are not looked at (location).
        hidden_dim: number d_a of hidden units, for additive and concat.
        max_keys: largest number of keys, for location.

    Shape:
        - query: (B, T, d_q)
        - key: (B, S, d_k)
        - value: (B, S, d_v)
        - mask: bool, True = may be attended, three dimensions that broadcast to (B, T, S); padding (B, S) is
          passed as `padding[:, None]`; a row without any key gives zeros
        - scores(query, key): (B, T, S); dot products at least in float32
        - attention(query, key): (B, T, S); weights are not negative and sum to one over S
        - forward(query, key, value): (B, T, d_v)

    Raises:
        ValueError: `mode` is unknown, a width is below 1, a dot product has two widths, location meets more
            than `max_keys` keys, or query, key, value or mask do not fit each other.
        TypeError: a width is no whole number, or `mask` is not bool.

    General with W = I is the dot product, and sqrt(d) = 2 times the scaled one:

    >>> query, key = torch.tensor([[[1.0, 2, 0, 0]]]), torch.tensor([[[3.0, 1, 7, 7], [0, 4, 0, 0]]])
    >>> ScoredAttention("dot", 4, 4).scores(query, key)
    tensor([[[5., 8.]]])
    >>> ScoredAttention("scaled_dot", 4, 4).scores(query, key)
    tensor([[[2.5000, 4.0000]]])
    >>> general = ScoredAttention("general", 4, 4)
    >>> general.load_state_dict({"W.weight": torch.eye(4)})
    <All keys matched successfully>
    >>> general.scores(query, key).tolist()
    [[[5.0, 8.0]]]

    Only location does not see the keys:

    >>> unseen = []
    >>> for mode in MODES:
    ...     attend = ScoredAttention(mode, 4, 4)
    ...     if torch.equal(attend.attention(query, key), attend.attention(query, key + key.square())):
    ...         unseen.append(mode)
    >>> unseen
    ['location']
    """

    def __init__(
        self, mode: str, query_dim: int, key_dim: int, hidden_dim: int = 64, max_keys: int = 64
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        if min(operator.index(size) for size in (query_dim, key_dim, hidden_dim, max_keys)) < 1:
            raise ValueError(
                f"query_dim {query_dim}, key_dim {key_dim}, hidden_dim {hidden_dim} and max_keys {max_keys} "
                "must be at least 1"
            )
        if "dot" in mode and query_dim != key_dim:
            raise ValueError(f"query_dim {query_dim} must be equal to key_dim {key_dim} in mode {mode!r}")
        self.mode, self.query_dim, self.key_dim, self.max_keys = mode, query_dim, key_dim, max_keys
        if mode == "general":
            self.W = nn.Linear(query_dim, key_dim, bias=False)
        elif mode == "location":
            self.W = nn.Linear(query_dim, max_keys, bias=False)
        elif mode == "additive":
            self.W_q = nn.Linear(query_dim, hidden_dim, bias=False)
            self.W_k = nn.Linear(key_dim, hidden_dim, bias=False)
        elif mode == "concat":
            self.W = nn.Linear(query_dim + key_dim, hidden_dim, bias=False)
        if mode in ("additive", "concat"):
            self.v = nn.Linear(hidden_dim, 1, bias=False)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Return s(q_t, k_s) for all pairs: (B, T, d_q), (B, S, d_k) -> (B, T, S)."""
        (B, T), S = query.shape[:2], key.shape[1]
        if query.shape != (B, T, self.query_dim) or key.shape != (B, S, self.key_dim):
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, T, d_q) and (B, S, d_k) "
                f"with the same B, d_q = {self.query_dim} and d_k = {self.key_dim}"
            )
        scores: Tensor
        if self.mode == "location":
            if self.max_keys < S:
                raise ValueError(f"number of keys {S} must be at most max_keys {self.max_keys}")
            scores = self.W(query)[..., :S]
        elif self.mode == "additive":
            hidden = self.W_q(query)[:, :, None] + self.W_k(key)[:, None]  # (B, T, S, d_a)
            scores = self.v(hidden.tanh()).squeeze(-1)
        elif self.mode == "concat":
            both = query[:, :, None].expand(-1, -1, S, -1), key[:, None].expand(-1, T, -1, -1)
            pairs = torch.cat(both, dim=-1)  # (B, T, S, d_q + d_k)
            scores = self.v(self.W(pairs).tanh()).squeeze(-1)
        else:
            asked = self.W(query) if self.mode == "general" else query
            root = math.sqrt(key.shape[-1])
            scores = asked / root @ key.mT
            if self.mode != "scaled_dot":  # back to full size, which float16 (up to 65504) may not hold
                scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * root
        return scores

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return g(x), the weights: (B, T, S). `value` is not used: the arguments are those of forward."""
        scores = self.scores(query, key)
        if mask is None:
            return scores.softmax(dim=-1).to(query.dtype)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True = may be attended, not {mask.dtype}")
        fits = all(n in (1, full) for n, full in zip(mask.shape, scores.shape, strict=False))
        if mask.dim() != 3 or not fits:
            raise ValueError(
                f"mask {tuple(mask.shape)} must have three dimensions that broadcast to (B, T, S) = "
                f"{tuple(scores.shape)}; (T, S) is passed as mask[None], padding (B, S) as padding[:, None]"
            )
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # the last step empties rows without a key
        return weights.to(query.dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return f(g(x), x), what each query reads: (B, T, d_v)."""
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, S, d_v) with B and S of key {tuple(key.shape)}"
            )
        return self.attention(query, key, mask=mask) @ value


def example(
    B: int = 2, T: int = 3, S: int = 5, d_q: int = 8, d_k: int = 6, d_v: int = 4
) -> tuple[ScoredAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return seeded attention with the general score, and queries, keys and values of different widths."""
    torch.manual_seed(0)
    inputs = torch.randn(B, T, d_q), torch.randn(B, S, d_k), torch.randn(B, S, d_v)
    return ScoredAttention("general", d_q, d_k).eval(), inputs


def variants(**sizes: int) -> dict[str, tuple[ScoredAttention, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    general, (query, key, value) = example(**sizes)
    (B, T, d_q), (S, d_k) = query.shape, key.shape[1:]
    mask = torch.rand(B, T, S) > 0.3
    mask[:, 0] = False
    cases: dict[str, tuple[ScoredAttention, tuple[Tensor, ...]]] = {
        "masked": (general, (query, key, value, mask))
    }
    for mode in ("dot", "scaled_dot"):
        cases[mode] = ScoredAttention(mode, d_k, d_k).eval(), (torch.randn(B, T, d_k), key, value)
    for mode in ("additive", "concat", "location"):
        cases[mode] = ScoredAttention(mode, d_q, d_k, max_keys=max(S, 64)).eval(), (query, key, value)
    return cases


if __name__ == "__main__":
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 16), torch.randn(1, 6, 16)
    for mode in MODES:
        attend = ScoredAttention(mode, 16, 16)
        weights = " ".join(f"{weight:.2f}" for weight in attend.attention(query, key)[0, 0])
        print(f"{mode:10}  {sum(p.numel() for p in attend.parameters()):4} parameters, weights {weights}")
