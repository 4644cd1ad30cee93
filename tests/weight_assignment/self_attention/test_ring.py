"""Proofs of ring attention."""

from functools import cache

import pytest
import torch
from torch import Tensor

from snippets.weight_assignment.self_attention.ring import MODES, RingAttention, UlyssesAttention
from tests.measure import Measured
from tests.ranks import spread
from tests.weight_assignment.self_attention.ring_of_torch import with_torch
from tests.weight_assignment.self_attention.ring_ranks import Layer, inputs, layers, ours

EXCEPTIONS = {
    "test_forward_mode_equals_backward_mode": {
        "ring": "backward is written by hand, forward mode is not there, as in torch's kernels",
        "ring:not_causal": "as ring",
        "ring:contiguous": "as ring",
        "ring:striped": "as ring",
    }
}


def naive(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Return o (B, H, T, d_v) over all T tokens in natural order."""
    (batch, heads, t, d), s = q.shape, k.shape[2]
    outs = []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                seen = [j for j in range(s) if j <= i or not causal]
                e = [torch.exp((q[b, h, i] * k[b, h, j]).sum() * d**-0.5) for j in seen]
                read = sum(a * v[b, h, j] for a, j in zip(e, seen, strict=True))
                outs.append(read / sum(e))
    return torch.stack(outs).reshape(batch, heads, t, v.shape[-1])


def naive_positions(length: int, ranks: int) -> list[list[int]]:
    """Return the tokens that each rank holds in zigzag order, 2 P dividing T."""
    n = length // (2 * ranks)
    chunks = [[r, 2 * ranks - 1 - r] for r in range(ranks)]
    return [[c * n + i for c in pair for i in range(n)] for pair in chunks]


def leaves(length: int, heads: int = 2) -> list[Tensor]:
    return [x[:, :heads].clone().requires_grad_() for x in inputs(length)[:3]]


@pytest.mark.parametrize(("length", "ranks"), [(8, 2), (13, 3), (3, 4)])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_ring_equals_naive_reference(
    measured: Measured, mode: str, is_causal: bool, length: int, ranks: int
) -> None:
    q, k, v = leaves(length)
    y, expected = RingAttention(ranks, is_causal, mode)(q, k, v), naive(q, k, v, is_causal)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(q, k, v))


@pytest.mark.parametrize(("length", "ranks"), [(8, 2), (7, 4), (3, 4)])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_exchanged_heads_equal_naive_reference(
    measured: Measured, mode: str, is_causal: bool, length: int, ranks: int
) -> None:
    q, k, v = leaves(length, heads=4)
    y, expected = UlyssesAttention(ranks, is_causal, mode)(q, k, v), naive(q, k, v, is_causal)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(q, k, v))


@pytest.mark.parametrize("is_causal", [False, True])
def test_output_is_weights_times_values(measured: Measured, is_causal: bool) -> None:
    q, k, v, _ = inputs(50)
    layer = RingAttention(4, is_causal)
    measured.close(layer(q, k, v), layer.attention(q, k) @ v)


@cache
def in_processes(size: int) -> list[dict[str, list[Tensor]]]:
    """What each process computed; with two, torch's own functions too."""
    return spread(with_torch if size == 2 else ours, size)


@cache
def whole() -> dict[bool, list[Tensor]]:
    """Output and gradients in one process, from the explicit softmax."""
    found = {}
    for is_causal in (False, True):
        *tensors, upstream = inputs()
        q, k, v = (x.clone().requires_grad_() for x in tensors)
        output = RingAttention(1, is_causal).attention(q, k) @ v
        found[is_causal] = [output.detach(), *torch.autograd.grad(output, (q, k, v), upstream)]
    return found


@pytest.mark.parametrize("kind", [RingAttention, UlyssesAttention])
@pytest.mark.parametrize("size", [2, 4])
def test_processes_compute_what_one_does(measured: Measured, size: int, kind: type[Layer]) -> None:
    for name, layer in layers(size):
        if type(layer) is not kind:
            continue
        names = ("output", "gradient of q", "gradient of k", "gradient of v")
        parts = zip(*(found[name] for found in in_processes(size)), strict=True)
        for what, part, expected in zip(names, parts, whole()[layer.is_causal], strict=True):
            joined = layer.join(torch.stack(part), 48)
            measured.value(what, (joined - expected).abs().max().item(), at_most=1e-10)


def of_torch(name: str) -> list[list[Tensor]]:
    """What a function of torch returned in each of two processes."""
    return [found[name] for found in in_processes(2)]


def test_the_private_ring_of_torch_computes_the_same(measured: Measured) -> None:
    parts = [output for (output,) in of_torch("ring")]
    measured.close(torch.cat(parts, dim=2), whole()[True][0])
    ours = [found["RingAttention contiguous True"][0] for found in in_processes(2)]
    measured.close(torch.stack(parts), torch.stack(ours))


def test_heads_over_processes_by_local_map_compute_the_same(measured: Measured) -> None:
    for output in of_torch("heads"):
        for found, expected in zip(output, whole()[True], strict=True):
            measured.close(found, expected)


@pytest.mark.parametrize("ranks", [2, 4])
def test_zigzag_pairs_a_chunk_with_its_mirror_image(measured: Measured, ranks: int) -> None:
    positions = RingAttention(ranks).positions(48).flatten(1)
    measured.close(positions, torch.tensor(naive_positions(48, ranks)), tolerance=0)


@pytest.mark.parametrize("mode", MODES)
def test_every_token_is_held_once_and_comes_back(mode: str) -> None:
    for length in range(1, 20):
        layer = RingAttention(3, mode=mode)
        held = layer.positions(length).flatten()
        assert held[held >= 0].sort().values.tolist() == list(range(length))
        x = torch.randn(2, 1, length, 3)
        assert torch.equal(layer.join(layer.split(x), length), x)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_work_of_the_slowest_rank_beside_the_ideal(measured: Measured, ranks: int) -> None:
    """Causal, 512 tokens: the largest number of pairs in each round, summed, over an equal share of all."""
    share = 512 * 513 / 2 / ranks
    slowest = {
        mode: RingAttention(ranks, True, mode).work(512).amax(dim=1).sum().item() / share for mode in MODES
    }
    measured.value("contiguous", slowest["contiguous"], equals=2 - 1 / ranks, within=0.005)
    measured.value("striped", slowest["striped"], below=1.03)
    measured.value("zigzag", slowest["zigzag"], equals=1, within=0.001)


def test_without_positions_a_permuted_causal_mask_is_wrong(measured: Measured) -> None:
    """Zigzag tokens under the positions of contiguous ones."""
    q, k, v, _ = inputs()
    layer, plain = RingAttention(4, True), RingAttention(4, True, "contiguous")
    layer.positions = plain.positions
    measured.value("max |Δ|", (layer(q, k, v) - whole()[True][0]).abs().max().item(), above=0.5)


def test_single_precision_keeps_large_scores(measured: Measured) -> None:
    """Scores of size 36; beside float64, relative to the largest output."""
    q, k, v, _ = inputs(64)
    q = 36 * q / (q @ k.mT * q.shape[-1] ** -0.5).std()
    exact = RingAttention(4, True)(q, k, v)
    single = RingAttention(4, True)(*(x.float() for x in (q, k, v)))
    measured.value("relative error", ((single - exact).abs().max() / exact.abs().max()).item(), below=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v, _ = inputs()
    with pytest.raises(ValueError, match="must be \\(B, heads, T, d\\) with the same sizes"):
        RingAttention(4)(q, k[:, :1], v[:, :1])
    with pytest.raises(ValueError, match="heads 4 must be divisible by ranks 3"):
        UlyssesAttention(3)(q, k, v)
    with pytest.raises(ValueError, match="mode 'zig' must be one of contiguous, striped, zigzag"):
        RingAttention(4, mode="zig")
