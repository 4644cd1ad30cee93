"""Position biases: each score gets a number for how far apart query and key stand, in four published forms.

Paper: Colin Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (T5), JMLR 2020, arXiv 1910.10683; Peter Shaw, Jakob Uszkoreit, Ashish Vaswani, "Self-Attention
with Relative Position Representations", NAACL 2018, arXiv 1803.02155; Zihang Dai et al., "Transformer-XL:
Attentive Language Models Beyond a Fixed-Length Context", ACL 2019, arXiv 1901.02860; Ofir Press, Noah A.
Smith, Mike Lewis, "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation"
(ALiBi), ICLR 2022, arXiv 2108.12409.
Code: huggingface/transformers 5.23.0, models t5, wav2vec2_bert, xlnet, bloom and mpt.
Differs: heads go in and come out; projections, dropout and norms are left to the caller. Queries may be the
last T of S tokens. ALiBi takes |i - j|, so that it works without a causal mask. Start values are normal, with
deviation 0.02.
SPDX-License-Identifier: MIT
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def distances(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Return j - i for each key j and query i; the queries are the last T of S tokens: (T, S).

    >>> distances(2, 4)
    tensor([[-2, -1,  0,  1],
            [-3, -2, -1,  0]])
    """
    return torch.arange(S, device=device) - torch.arange(S - T, S, device=device)[:, None]


def bucket(distance: Tensor, causal: bool, buckets: int = 32, longest: int = 128) -> Tensor:
    """Return the row of T5's table for each distance j - i.

    Half of the rows are one distance each, the others cover more and more, to `longest` and beyond. Without
    causality each direction has half of the table; later keys the second one, whose first row stays unused.

    >>> bucket(-torch.tensor([0, 1, 15, 16, 18, 19, 112, 113, 5000]), causal=True).tolist()
    [0, 1, 15, 16, 16, 17, 30, 31, 31]
    >>> bucket(torch.tensor([-1, 0, 1, 2]), causal=False).tolist()
    [1, 0, 17, 18]
    """
    side = buckets if causal else buckets // 2
    exact, apart = side // 2, -distance.clamp(max=0) if causal else distance.abs()
    share = (apart.clamp(min=exact) / exact).log() / math.log(longest / exact)
    far = (exact + (share * (side - exact)).long()).clamp(max=side - 1)
    return torch.where(apart < exact, apart, far) + (0 if causal else side * (distance > 0))


def slopes(num_heads: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Return ALiBi's slope of each head: 2^(-8h / H) for a power of two, else those and every second of 2H.

    >>> slopes(6).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    power = 2 ** (num_heads.bit_length() - 1)
    first = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2 ** (-4 * head / power) for head in range(1, 2 * (num_heads - power), 2)]
    return torch.tensor(first + between, device=device, dtype=dtype)


class ShawKeys(nn.Module):
    """Shaw: a learned vector for each distance stands beside the keys, q (k + a); far distances share one."""

    def __init__(self, head_dim: int, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = _reach(left, right)
        self.rows = nn.Linear(head_dim, self.left + self.right + 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        nn.init.normal_(self.rows.weight, std=0.02)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return q a / sqrt(d): (B, heads, T, d), (B, heads, S, d) -> (B, heads, T, S)."""
        products = self.rows(query * query.shape[-1] ** -0.5)  # (B, heads, T, left + right + 1)
        row = distances(query.shape[2], key.shape[2], query.device).clamp(-self.left, self.right) + self.left
        found: Tensor = products.gather(-1, row.expand(*products.shape[:2], -1, -1))
        return found


class ShawValues(nn.Module):
    """Shaw: likewise beside the values, read with the same weights."""

    def __init__(self, value_dim: int, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = _reach(left, right)
        self.rows = nn.Linear(self.left + self.right + 1, value_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        nn.init.normal_(self.rows.weight, std=0.02)

    def forward(self, weights: Tensor) -> Tensor:
        """Return what the weights read of the vectors: (B, heads, T, S) -> (B, heads, T, d_v)."""
        row = (
            distances(weights.shape[2], weights.shape[3], weights.device).clamp(-self.left, self.right)
            + self.left
        )
        sums = weights.new_zeros(*weights.shape[:3], self.left + self.right + 1)
        read: Tensor = self.rows(sums.scatter_add(-1, row.expand(weights.shape), weights))
        return read


class T5Bias(nn.Module):
    """T5: a learned number for each head and bucket of distances; its attention has scale 1."""

    def __init__(self, num_heads: int, causal: bool = False, buckets: int = 32, longest: int = 128) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads {num_heads} must be at least 1")
        if buckets < 4:
            raise ValueError(f"buckets {buckets} must be at least 4")
        if longest < buckets:
            raise ValueError(f"longest {longest} must be at least buckets {buckets}")
        self.causal, self.longest = causal, operator.index(longest)
        self.table = nn.Embedding(buckets, num_heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the numbers: (B, heads, T, d), (B, heads, S, d) -> (heads, T, S)."""
        distance = distances(query.shape[2], key.shape[2], query.device)
        numbers: Tensor = self.table(bucket(distance, self.causal, self.table.num_embeddings, self.longest))
        return numbers.permute(2, 0, 1)


class TransformerXLBias(nn.Module):
    """Transformer-XL: (u k + (q + v) W_R s) / sqrt(d), s the sinusoids of the distance; it must be causal."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        if num_heads < 1 or head_dim < 2 or head_dim % 2:
            raise ValueError(f"head_dim {head_dim} must be even and at least 2")
        self.r_proj = nn.Linear(num_heads * head_dim, num_heads * head_dim, bias=False)
        self.u = nn.Parameter(torch.empty(num_heads, 1, head_dim))
        self.v = nn.Parameter(torch.empty(num_heads, 1, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the bias: (B, heads, T, d), (B, heads, S, d) -> (B, heads, T, S)."""
        scale, heads = query.shape[-1] ** -0.5, query.shape[1]
        wave = _sinusoids(key.shape[2], self.r_proj.in_features, query)
        places = self.r_proj(wave).unflatten(1, (heads, -1)).transpose(0, 1)  # (heads, S, d)
        by_distance = ((query + self.v) * scale) @ places.mT  # (B, heads, T, S), column n: n back
        back = -distances(query.shape[2], key.shape[2], query.device).clamp(max=0)
        content = (self.u * scale) @ key.mT  # (B, heads, 1, S)
        bias: Tensor = content + by_distance.gather(-1, back.expand(by_distance.shape))
        return bias


class ALiBi(nn.Module):
    """ALiBi: minus the distance times a slope, of which each head has another; nothing is learned."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads {num_heads} must be at least 1")
        self.num_heads = operator.index(num_heads)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the bias, in float32 at least: (B, heads, T, d), (B, heads, S, d) -> (heads, T, S)."""
        slope = slopes(self.num_heads, query.device, torch.promote_types(query.dtype, torch.float32))
        return -slope[:, None, None] * distances(query.shape[2], key.shape[2], query.device).abs()


class BiasedAttention(nn.Module):
    """Attention whose scores get a bias for how far apart query and key stand.

    g(x) = softmax(Q K^T scale + bias); f(g, x) = g V.

    Args:
        bias: makes the bias of query and key: `ShawKeys`, `T5Bias`, `TransformerXLBias` or `ALiBi`.
        causal: whether keys behind the query are hidden.
        scale: of the products; 1 / sqrt(d) if not given.
        values: what the weights read besides: `ShawValues`, or nothing.

    Shape:
        - query: (B, heads, T, d), the last T of S tokens
        - key: (B, heads, S, d)
        - value: (B, heads, S, d_v)
        - attention(...): (B, heads, T, S); rows sum to one, or to zero where no key is left
        - forward(...): (B, heads, T, d_v)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: `scale` is not finite, or query, key, value and bias do not fit each other.

    Equal queries and keys: all that tells tokens apart is the distance, here in a head with slope 1/2.

    >>> attend, same = BiasedAttention(ALiBi(8), causal=True), torch.ones(1, 8, 4, 16)
    >>> attend.attention(same, same)[0, 0, 3].log().diff()
    tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        bias: nn.Module,
        causal: bool = False,
        scale: float | None = None,
        values: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if scale is not None and not math.isfinite(scale):
            raise ValueError(f"scale {scale} must be finite")
        self.bias, self.values, self.causal = bias, values, causal
        self.scale = None if scale is None else float(scale)

    def attention(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        """Return g(x), the weights: (B, heads, T, S). `value` is not used."""
        bias = self._bias(query, key)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = (query * scale) @ key.mT + bias  # (B, heads, T, S)
        hidden = bias == -torch.inf
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(hidden, 0.0)  # which empties rows without a key

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return f(g(x), x), the first part by the fused kernel: (B, heads, T, d_v)."""
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value {tuple(value.shape)} must be (B, heads, S, d_v) with B and S of key "
                f"{tuple(key.shape)}"
            )
        read = F.scaled_dot_product_attention(query, key, value, self._bias(query, key), scale=self.scale)
        if self.values is None:
            return read
        more: Tensor = self.values(self.attention(query, key))
        if more.shape != read.shape:
            raise ValueError(f"values {tuple(more.shape)} must have the shape of read {tuple(read.shape)}")
        return read + more

    def _bias(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the bias, and minus infinity where a key is hidden, in the dtype of the query."""
        if query.dim() != 4 or key.dim() != 4 or query.shape[:2] != key.shape[:2]:
            raise ValueError(
                f"query {tuple(query.shape)} and key {tuple(key.shape)} must be (B, heads, T, d) and "
                "(B, heads, S, d) with the same B and heads"
            )
        bias: Tensor = self.bias(query, key)
        full = (*query.shape[:3], key.shape[2])
        if bias.shape != full[4 - bias.dim() :]:
            raise ValueError(
                f"bias {tuple(bias.shape)} must have at most 4 dimensions that broadcast to "
                f"(B, heads, T, S) = {full}"
            )
        bias = bias.to(query.dtype).expand(full)
        if not self.causal:
            return bias
        return bias.masked_fill(distances(query.shape[2], key.shape[2], query.device) > 0, -torch.inf)


def _reach(left: int, right: int) -> tuple[int, int]:
    if left < 0 or right < 0:
        raise ValueError(f"left {left} and right {right} must be at least 0")
    return operator.index(left), operator.index(right)


def _sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Sines, then cosines of the distances from 0, in float32 at least, then rounded: (length, width)."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    pace = 10_000.0 ** (-torch.arange(0, width, 2, dtype=dtype, device=like.device) / width)
    angle = torch.arange(length, device=like.device)[:, None] * pace
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


def example(
    B: int = 2, heads: int = 4, T: int = 6, S: int = 10, d: int = 8, d_v: int = 5
) -> tuple[BiasedAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return seeded attention with T5's bias and its inputs: T queries at the end of S tokens."""
    torch.manual_seed(0)
    inputs = torch.randn(B, heads, T, d), torch.randn(B, heads, S, d), torch.randn(B, heads, S, d_v)
    return BiasedAttention(T5Bias(heads), scale=1.0).eval(), inputs


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its inputs."""
    _, inputs = example(**sizes)
    heads, d, d_v = inputs[0].shape[1], inputs[0].shape[3], inputs[2].shape[3]
    made = {
        "t5_causal": BiasedAttention(T5Bias(heads, causal=True), causal=True, scale=1.0),
        "shaw": BiasedAttention(ShawKeys(d, 3, 2), values=ShawValues(d_v, 3, 2)),
        "transformer_xl": BiasedAttention(TransformerXLBias(heads, d), causal=True),
        "alibi": BiasedAttention(ALiBi(heads), causal=True),
        "alibi_both_ways": BiasedAttention(ALiBi(heads)),
    }
    return {name: (attend.eval(), inputs) for name, attend in made.items()}


if __name__ == "__main__":
    attend, (query, key, value) = example()
    print(f"{tuple(query.shape)} reads {tuple(key.shape)} -> {tuple(attend(query, key, value).shape)}")
    print("first distance of T5's causal buckets from 16 on:", end=" ")
    rows = bucket(-torch.arange(200), causal=True).tolist()
    print(*(rows.index(row) for row in range(16, 32)))
