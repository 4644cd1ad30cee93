"""Ring attention: a sequence is spread over processes; queries stay, keys and values travel round.

Paper: Hao Liu, Matei Zaharia, Pieter Abbeel, "Ring Attention with Blockwise Transformers for Near-Infinite
Context", ICLR 2024, arXiv 2310.01889 (algorithm 1, appendix A). Beside it: William Brandon et al., "Striped
Attention", arXiv 2311.09431; Sam Ade Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509.
Code: haoliuhl/ringattention d2dd057, ringattention/ringattention_jax.py; zhuzilin/ring-flash-attention
0fc25b4, ring_flash_attn/ring_flash_attn.py.
Differs: keys are sent after they were used, not meanwhile. Positions travel with the keys, so any layout of
the tokens is right, and a length that the ranks do not divide is padded. Pairs that a causal mask hides are
computed all the same.
SPDX-License-Identifier: MIT
"""

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("contiguous", "striped", "zigzag")


class Simulated:
    """All ranks in one process: the first axis of each tensor is the rank."""

    def __init__(self, size: int) -> None:
        self.size = size

    def own(self, parts: Tensor) -> Tensor:
        """Return all parts."""
        return parts

    def rotate(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Move each part to the next rank."""
        return [x.roll(1, dims=0) for x in tensors]

    def exchange(self, x: Tensor) -> Tensor:
        """Send slice j of rank i, x[i, j], to rank j as its slice i."""
        return x.transpose(0, 1)


class Processes:
    """The ranks of torch.distributed, which must be initialised; without a group all of them."""

    def __init__(self, group: "dist.ProcessGroup | None" = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def own(self, parts: Tensor) -> Tensor:
        """Return the part of this rank."""
        return parts[self.rank]

    def rotate(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Send to the next rank and receive from the previous one, all at once. Has no gradient."""
        if self.size == 1:
            return list(tensors)
        received = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]
        after, before = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        sends = [dist.P2POp(dist.isend, x.contiguous(), group=self.group, group_peer=after) for x in tensors]
        receipts = [dist.P2POp(dist.irecv, x, group=self.group, group_peer=before) for x in received]
        for request in dist.batch_isend_irecv(sends + receipts):
            request.wait()
        return received

    def exchange(self, x: Tensor) -> Tensor:
        """Send slice i of x (ranks, ...) to rank i, receive slice i from it; the gradient does the same."""
        received: Tensor = _Exchange.apply(x, self.group)  # type: ignore[no-untyped-call]
        return received


Ranks: TypeAlias = Simulated | Processes


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        ctx.group = group
        received = torch.empty_like(x, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, x.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Exchange.apply(gradient, ctx.group), None  # type: ignore[no-untyped-call]


class _Ring(torch.autograd.Function):
    """Each round attends to the keys that are here, then passes them on; in backward with their gradients."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, position: Tensor, is_causal: bool, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        visiting = position
        output, lse = torch.zeros_like(q), torch.full_like(q[..., 0], -torch.inf)
        for round in range(ranks.size):
            if round:
                k, v, visiting = ranks.rotate([k, v, visiting])
            scores = _scores(q, k, position, visiting, is_causal)
            merged = torch.logaddexp(lse, scores.logsumexp(dim=-1))
            reference = _finite(merged)[..., None]
            output = (lse[..., None] - reference).exp() * output + (scores - reference).exp() @ v
            lse = merged
        return output, lse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.is_causal, ctx.ranks = inputs
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, position, output, lse = ctx.saved_tensors
        reference = _finite(lse)[..., None]
        mean = (d_output * output).sum(dim=-1, keepdim=True) - d_lse[..., None]
        visiting, dq, dk, dv = position, torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for _ in range(ctx.ranks.size):
            weights = (_scores(q, k, position, visiting, ctx.is_causal) - reference).exp()
            d_scores = weights * (d_output @ v.mT - mean) * q.shape[-1] ** -0.5
            dq = dq + d_scores @ k
            dk, dv = dk + d_scores.mT @ q, dv + weights.mT @ d_output
            k, v, visiting, dk, dv = ctx.ranks.rotate([k, v, visiting, dk, dv])
        return dq, dk, dv, None, None, None  # after a full round dk and dv are home


class RingAttention(nn.Module):
    """Scaled dot-product self-attention over a sequence that is spread over ranks.

    g(x) = softmax(Q K^T / sqrt(d)); f(g, x) = g V. Each rank has T / ranks tokens; in each round it attends
    to the keys and values that are with it, corrects its output, and passes them on to the next rank.

    Args:
        ranks: number of ranks.
        is_causal: hides later keys.
        mode: which tokens a rank holds, one of MODES: `contiguous` neighbours; `striped` every ranks-th one;
            `zigzag` a chunk from the beginning and its mirror image from the end, which gives all ranks the
            same work under a causal mask.

    Shape:
        - query, key, value: (B, heads, T, d), the whole sequence
        - attention(query, key): (B, heads, T, T)
        - forward(...): (B, heads, T, d); all ranks in this process, in turn
        - local(...): (B, heads, t, d); the same in one of the processes of torch.distributed, for its tokens
        - split(x): (B, heads, T, d) -> (ranks, B, heads, t, d) with t = T / ranks, rounded up
        - positions(T): (ranks, 1, 1, t), where each token stands; -1 is padding

    Sums are taken in float32 at least. There is no forward mode (`torch.func.jvp`), and between processes
    there are first derivatives only.

    Raises:
        ValueError: `ranks` is below 1, `mode` is unknown, or query, key and value are not of one shape.

    Four ranks give what one gives:

    >>> layer, (query, key, value) = example()
    >>> torch.allclose(layer(query, key, value), layer.attention(query, key) @ value, atol=1e-6)
    True

    Pairs of a query and a key that each of four ranks has to compare, 48 tokens, causal:

    >>> [RingAttention(4, True, mode).work(48).sum(dim=0).tolist() for mode in MODES]
    [[78, 222, 366, 510], [276, 288, 300, 312], [294, 294, 294, 294]]
    """

    def __init__(self, ranks: int, is_causal: bool = False, mode: str = "zigzag") -> None:
        super().__init__()
        if ranks < 1:
            raise ValueError(f"ranks {ranks} must be at least 1")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
        self.ranks = operator.index(ranks)
        self.is_causal = is_causal
        self.mode = mode

    def attention(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        """Return g(x), the weights that no rank ever holds: (B, heads, T, T). `value` is not used."""
        _check(query, key, key)
        position = torch.arange(query.shape[2], device=query.device)
        exact = torch.promote_types(query.dtype, torch.float32)
        scores = _scores(query.to(exact), key.to(exact), position, position, self.is_causal)
        return scores.softmax(dim=-1).to(query.dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return f(g(x), x), all ranks in this process: (B, heads, T, d)."""
        _check(query, key, value)
        positions = self.positions(query.shape[2], query.device)
        q, k, v = (self.split(x) for x in (query, key, value))  # (ranks, B, heads, t, d)
        return self.join(self.local(q, k, v, positions, Simulated(self.ranks)), query.shape[2])

    def local(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, ranks: Ranks) -> Tensor:
        """Return the output for the tokens held here; each rank calls it, with the positions of all."""
        exact = torch.promote_types(q.dtype, torch.float32)
        tensors = q.to(exact), k.to(exact), v.to(exact), ranks.own(positions)
        output: Tensor = _Ring.apply(*tensors, self.is_causal, ranks)[0]  # type: ignore[no-untyped-call]
        return output.to(v.dtype)

    def split(self, x: Tensor) -> Tensor:
        """Deal the tokens out to the ranks: (B, heads, T, d) -> (ranks, B, heads, t, d)."""
        order = self._order(x.shape[2], x.device)
        padded = F.pad(x, (0, 0, 0, order.numel() - x.shape[2]))
        return padded[:, :, order].movedim(2, 0)

    def join(self, parts: Tensor, length: int) -> Tensor:
        """Put the tokens back in their order: (ranks, B, heads, t, d) -> (B, heads, T, d)."""
        place = self._order(length, parts.device).flatten().argsort()[:length]
        return parts.movedim(0, 2).flatten(2, 3)[:, :, place]

    def positions(self, length: int, device: torch.device | None = None) -> Tensor:
        """Return which tokens of a sequence each rank holds, -1 for padding: (ranks, 1, 1, t)."""
        order = self._order(length, device)
        return order.masked_fill(order >= length, -1)[:, None, None]

    def work(self, length: int) -> Tensor:
        """Count the pairs that may see each other, by round and rank: (ranks, ranks)."""
        position = visiting = self.positions(length)
        rounds = []
        for _ in range(self.ranks):
            rounds.append(_seen(position, visiting, self.is_causal).sum(dim=(1, 2, 3, 4)))
            visiting = visiting.roll(1, dims=0)
        return torch.stack(rounds)

    def _order(self, length: int, device: torch.device | None) -> Tensor:
        """Return the tokens of each rank, counted on beyond the length to equal parts: (ranks, t)."""
        chunks = 2 * self.ranks if self.mode == "zigzag" else self.ranks
        size = -(-length // chunks)
        place = torch.arange(chunks * size, device=device)
        if self.mode == "striped":
            return place.view(size, chunks).T
        place = place.view(chunks, size)
        if self.mode == "contiguous":
            return place
        return torch.cat([place, place.flip(0)], dim=1)[: self.ranks]  # chunk r and chunk 2 ranks - 1 - r


class UlyssesAttention(RingAttention):
    """The same by two exchanges: each rank gets all tokens of some heads, attends, and gives them back.

    g(x) = softmax(Q K^T / sqrt(d)); f(g, x) = g V.

    Args:
        ranks: number of ranks; divides the number of heads.
        is_causal: hides later keys.
        mode: which tokens a rank holds, one of MODES.

    Shape:
        - query, key, value: (B, heads, T, d), the whole sequence
        - attention(query, key): (B, heads, T, T)
        - forward(...): (B, heads, T, d)
        - local(...): (B, heads, t, d)

    Second derivatives and forward mode need torch's math kernel:
    `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`.

    Raises:
        ValueError: as `RingAttention`, or `ranks` does not divide the number of heads.
    """

    def local(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, ranks: Ranks) -> Tensor:
        """Return the output for the tokens held here; each rank calls it, with the positions of all."""
        if q.shape[-3] % ranks.size:
            raise ValueError(f"heads {q.shape[-3]} must be divisible by ranks {ranks.size}")
        q, k, v = (self._to_heads(x, ranks) for x in (q, k, v))
        place = positions.flatten()
        output = F.scaled_dot_product_attention(q, k, v, _seen(place, place, self.is_causal))
        slices = output.unflatten(-2, (ranks.size, -1)).movedim(-3, -5)  # (ranks, B, heads / ranks, t, d)
        return ranks.exchange(slices).movedim(-5, -4).flatten(-4, -3)  # (B, heads, t, d)

    def _to_heads(self, x: Tensor, ranks: Ranks) -> Tensor:
        slices = x.unflatten(-3, (ranks.size, -1)).movedim(-4, -5)  # (ranks, B, heads / ranks, t, d)
        return ranks.exchange(slices).movedim(-5, -3).flatten(-3, -2)  # (B, heads / ranks, T, d)


def _seen(query: Tensor, key: Tensor, is_causal: bool) -> Tensor:
    """Which keys at positions (..., S) the queries at positions (..., T) see: (..., 1 or T, S)."""
    real = key[..., None, :] >= 0
    return real & (key[..., None, :] <= query[..., :, None]) if is_causal else real


def _scores(q: Tensor, k: Tensor, position: Tensor, visiting: Tensor, is_causal: bool) -> Tensor:
    """Return the scores, minus infinity where hidden: (..., heads, t, t)."""
    scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.masked_fill(~_seen(position, visiting, is_causal), -torch.inf)


def _finite(lse: Tensor) -> Tensor:
    """Put zero in the place of minus infinity: where there is no key, exp(-inf - 0) is 0 and not NaN."""
    return lse.masked_fill(lse == -torch.inf, 0.0)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    if query.dim() != 4 or not query.shape == key.shape == value.shape:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} and value {tuple(value.shape)} must be "
            "(B, heads, T, d) with the same sizes"
        )


def example(
    B: int = 2, heads: int = 8, T: int = 48, d: int = 6, P: int = 4
) -> tuple[RingAttention, tuple[Tensor, Tensor, Tensor]]:
    """Return a causal ring of P ranks in this process, and seeded queries, keys and values."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, B, heads, T, d)
    return RingAttention(P, is_causal=True).eval(), (query, key, value)


def variants(**sizes: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the other configurations worth checking, each a seeded module in eval mode and its input."""
    layer, inputs = example(**sizes)
    return {
        "not_causal": (RingAttention(layer.ranks).eval(), inputs),
        "contiguous": (RingAttention(layer.ranks, True, "contiguous").eval(), inputs),
        "striped": (RingAttention(layer.ranks, True, "striped").eval(), inputs),
        "ulysses": (UlyssesAttention(layer.ranks, True).eval(), inputs),
    }


if __name__ == "__main__":
    layer, (query, key, value) = example()
    expected = layer.attention(query, key) @ value
    for kind in (RingAttention, UlyssesAttention):
        output = kind(layer.ranks, is_causal=True)(query, key, value)
        print(f"{kind.__name__} on {layer.ranks} ranks differs by {(output - expected).abs().max():.0e}")
    for mode in MODES:
        slowest = RingAttention(layer.ranks, True, mode).work(512).max(dim=1).values.sum()
        print(f"{mode}: the slowest rank of each round does {slowest / (512 * 513 / 2 / 4):.2f} of its share")
