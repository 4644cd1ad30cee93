"""What each process computes for the proofs of ring attention."""

from collections.abc import Iterator

import torch
from torch import Tensor

from snippets.weight_assignment.self_attention.ring import MODES, Processes, RingAttention, UlyssesAttention

Layer = RingAttention | UlyssesAttention


def inputs(length: int = 48) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, the same in all processes: (B, heads, T, d)."""
    torch.manual_seed(1)
    return list(2 * torch.randn(4, 2, 4, length, 6, dtype=torch.float64))


def layers(ranks: int) -> Iterator[tuple[str, Layer]]:
    """Name and layer of each case."""
    for kind in (RingAttention, UlyssesAttention):
        for mode in MODES:
            for is_causal in (False, True):
                yield f"{kind.__name__} {mode} {is_causal}", kind(ranks, is_causal, mode)


def ours() -> dict[str, list[Tensor]]:
    """Return output and gradients of query, key and value for the tokens of this rank, in each case."""
    ranks, found = Processes(), {}
    for name, layer in layers(ranks.size):
        q, k, v, upstream = (ranks.own(layer.split(x)).clone().requires_grad_() for x in inputs())
        output = layer.local(q, k, v, layer.positions(48), ranks)
        found[name] = [output.detach(), *torch.autograd.grad(output, (q, k, v), upstream.detach())]
    return found
