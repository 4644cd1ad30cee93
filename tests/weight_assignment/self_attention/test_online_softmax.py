"""Proofs of online softmax."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from snippets.weight_assignment.self_attention.online_softmax import (
    OnlineSoftmaxAttention,
    Part,
    finish,
    merge,
    start,
    update,
)
from tests.measure import Measured
from tests.memory import peak_bytes

EXCEPTIONS = {
    "test_forward_mode_equals_backward_mode": {
        "online_softmax": "backward is written by hand, forward mode is not there, as in torch's kernels",
        "online_softmax:causal": "as online_softmax",
        "online_softmax:masked": "as online_softmax",
    }
}
TILES = [(1, 1), (4, 3), (5, 7), (64, 64)]


def naive(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return o (B, H, T, d_v) and lse (B, H, T), zeros and -inf without allowed keys."""
    (batch, heads, t, d), s = q.shape, k.shape[2]
    may = None if mask is None else mask.expand(batch, heads, t, s)
    outs, sums = [], []
    for b in range(batch):
        for h in range(heads):
            for i in range(t):
                seen = [j for j in range(s) if may is None or bool(may[b, h, i, j])]
                if not seen:
                    outs.append(v.new_zeros(v.shape[-1]))
                    sums.append(q.new_tensor(float("-inf")))
                    continue
                e = [torch.exp((q[b, h, i] * k[b, h, j]).sum() * d**-0.5) for j in seen]
                read = sum(a * v[b, h, j] for a, j in zip(e, seen, strict=True))
                outs.append(read / sum(e))
                sums.append(torch.log(sum(e)))
    shape = (batch, heads, t)
    return torch.stack(outs).reshape(*shape, v.shape[-1]), torch.stack(sums).reshape(shape)


def naive_merge(o1: Tensor, lse1: Tensor, o2: Tensor, lse2: Tensor) -> tuple[Tensor, Tensor]:
    """Return (o, lse) of two parts over disjoint keys, weighted by their sums e^lse."""
    width = o1.shape[-1]
    parts = (o1.reshape(-1, width), lse1.reshape(-1))
    others = (o2.reshape(-1, width), lse2.reshape(-1))
    outs, sums = [], []
    for a, la, c, lc in zip(*parts, *others, strict=True):
        total = torch.exp(la) + torch.exp(lc)
        if float(total.detach()) == 0:
            outs.append(torch.zeros_like(a))
            sums.append(torch.full_like(la, float("-inf")))
            continue
        outs.append((torch.exp(la) * a + torch.exp(lc) * c) / total)
        sums.append(torch.log(total))
    return torch.stack(outs).reshape(o1.shape), torch.stack(sums).reshape(lse1.shape)


def tensors(T: int = 6, S: int = 9, d: int = 4, d_v: int = 3, heads: int = 2) -> list[Tensor]:
    """Queries, keys and values with large scores."""
    torch.manual_seed(1)
    shapes = ((T, d), (S, d), (S, d_v))
    return [2 * torch.randn(2, heads, *shape, dtype=torch.float64) for shape in shapes]


def leaves(*wanted: Tensor) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in wanted]


def holed(*shape: int) -> Tensor:
    """A bool mask whose second row allows nothing, and whose first keys are hidden from all."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[..., 1, :] = False
    mask[..., :4] = False
    return mask


def triangle(T: int, S: int) -> Tensor:
    return (torch.arange(S) <= torch.arange(T)[:, None] + (S - T))[None, None]


def both(part: tuple[Tensor, Tensor]) -> Tensor:
    """Output and log-sum-exp as one tensor, to compare the gradients of both; 0 for a query without keys."""
    output, lse = part
    return torch.cat([output, lse.masked_fill(lse == -torch.inf, 0.0)[..., None]], dim=-1)


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with the whole matrix of weights."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


@pytest.mark.parametrize("tile", TILES)
def test_equals_naive_reference(measured: Measured, tile: tuple[int, int]) -> None:
    q, k, v = leaves(*tensors())
    part, expected = OnlineSoftmaxAttention(*tile).parts(q, k, v), naive(q, k, v)
    measured.close(both(part), both(expected))
    measured.gradients(both(part), both(expected), of=(q, k, v))


@pytest.mark.parametrize("shape", [(2, 2, 6, 9), (2, 1, 6, 9), (1, 1, 6, 9)])
@pytest.mark.parametrize("tile", TILES)
def test_masked_equals_naive_reference(
    measured: Measured, tile: tuple[int, int], shape: tuple[int, ...]
) -> None:
    q, k, v = leaves(*tensors())
    mask = holed(*shape)
    part, expected = OnlineSoftmaxAttention(*tile).parts(q, k, v, mask), naive(q, k, v, mask)
    assert torch.equal(part.lse == -torch.inf, expected[1] == -torch.inf)
    measured.close(both(part), both(expected))
    measured.gradients(both(part), both(expected), of=(q, k, v))


@pytest.mark.parametrize(("T", "S"), [(9, 9), (6, 9), (9, 6)])
@pytest.mark.parametrize("tile", TILES)
def test_causal_equals_naive_reference(measured: Measured, tile: tuple[int, int], T: int, S: int) -> None:
    q, k, v = leaves(*tensors(T, S))
    part = OnlineSoftmaxAttention(*tile, is_causal=True).parts(q, k, v)
    expected = naive(q, k, v, triangle(T, S))
    measured.close(both(part), both(expected))
    measured.gradients(both(part), both(expected), of=(q, k, v))


@pytest.mark.parametrize("is_causal", [False, True])
def test_output_is_weights_times_values(measured: Measured, is_causal: bool) -> None:
    q, k, v = tensors(30, 40)
    attend = OnlineSoftmaxAttention(7, 11, is_causal)
    mask = holed(2, 1, 30, 40)
    measured.close(attend(q, k, v, mask), attend.attention(q, k, mask=mask) @ v)


def test_backward_equals_that_of_the_explicit_softmax(measured: Measured) -> None:
    q, k, v = leaves(*tensors(70, 90, d=16, d_v=8))
    measured.gradients(OnlineSoftmaxAttention(16, 32)(q, k, v), explicit(q, k, v), of=(q, k, v))


@pytest.mark.parametrize("is_causal", [False, True])
def test_equals_the_flash_kernel_of_torch(measured: Measured, is_causal: bool) -> None:
    """Output, log-sum-exp and gradients of the operation behind `F.scaled_dot_product_attention`."""
    q, k, v = leaves(*tensors(90, 90, d=8, d_v=8))
    part = OnlineSoftmaxAttention(16, 32, is_causal).parts(q, k, v)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, lse = flash(q, k, v, 0.0, is_causal)
    measured.close(part.output, output)
    measured.close(part.lse, lse)
    measured.gradients(part.output, output, of=(q, k, v))


def test_torch_gives_a_query_without_keys_the_log_sum_exp_of_one_key(measured: Measured) -> None:
    """With a score of 0, so such a part must not be merged."""
    q, k, v = tensors(d_v=4)
    added = torch.zeros(1, 1, 6, 9, dtype=torch.float64).masked_fill(~holed(1, 1, 6, 9), -torch.inf)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _, lse = flash(q, k, v, 0.0, False, attn_mask=added)
    measured.value("lse of torch", lse[:, :, 1].abs().max().item(), equals=0)
    ours = OnlineSoftmaxAttention().parts(q, k, v, holed(1, 1, 6, 9)).lse
    assert (ours[:, :, 1] == -torch.inf).all()


def test_the_state_after_each_block_is_attention_over_the_keys_so_far(measured: Measured) -> None:
    q, k, v = tensors(S=12)
    running = start(q, v.shape[3])
    for stop in range(3, 13, 3):
        block = slice(stop - 3, stop)
        running = update(running, q @ k[:, :, block].mT * q.shape[-1] ** -0.5, v[:, :, block])
        measured.close(both(finish(running)), both(naive(q, k[:, :, :stop], v[:, :, :stop])))


def parts_of(q: Tensor, k: Tensor, v: Tensor, cuts: list[slice]) -> list[Part]:
    attend = OnlineSoftmaxAttention(4, 3)
    return [attend.parts(q, k[:, :, cut], v[:, :, cut]) for cut in cuts]


CUTS = [slice(0, 2), slice(2, 7), slice(7, 9)]


def test_merged_parts_equal_naive_reference(measured: Measured) -> None:
    q, k, v = leaves(*tensors())
    first, second, _ = parts_of(q, k, v, CUTS)
    merged, expected = merge(first, second), naive_merge(*first, *second)
    measured.close(both(merged), both(expected))
    measured.gradients(both(merged), both(expected), of=(q, k, v))


def test_parts_merge_in_any_order_and_grouping(measured: Measured) -> None:
    q, k, v = leaves(*tensors())
    whole = both(naive(q, k, v))
    for a, b, c in itertools.permutations(parts_of(q, k, v, CUTS)):
        for merged in (merge(merge(a, b), c), merge(a, merge(b, c))):
            measured.close(both(merged), whole)
            measured.gradients(both(merged), whole, of=(q, k, v))


def test_the_mean_of_parts_is_something_else(measured: Measured) -> None:
    q, k, v = tensors()
    mean = torch.stack([part.output for part in parts_of(q, k, v, CUTS)]).mean(0)
    measured.value("max |mean − attention|", (mean - explicit(q, k, v)).abs().max().item(), above=0.1)


def test_an_empty_part_changes_nothing(measured: Measured) -> None:
    q, k, v = leaves(*tensors())
    (part,), (empty,) = parts_of(q, k, v, [slice(0, 9)]), parts_of(q, k, v, [slice(0, 0)])
    assert torch.equal(empty.lse, torch.full_like(empty.lse, -torch.inf))
    for merged in (merge(part, empty), merge(empty, part)):
        measured.close(both(merged), both(part), tolerance=0.0)
        measured.gradients(both(merged), both(part), of=(q, k, v))
    nothing = merge(empty, empty)
    assert not nothing.output.any()
    assert torch.equal(nothing.lse, empty.lse)
    gradients = torch.autograd.grad(both(nothing).sum(), (q, k, v))
    measured.value("gradient of two empty parts", max(g.abs().max().item() for g in gradients), equals=0)


def test_a_query_without_keys_reads_zeros_and_learns_nothing(measured: Measured) -> None:
    q, k, v = leaves(*tensors())
    mask = holed(1, 1, 6, 9)
    output, lse = OnlineSoftmaxAttention(4, 3).parts(q, k, v, mask)
    measured.value("output", output[:, :, 1].abs().max().item(), equals=0)
    assert (lse[:, :, 1] == -torch.inf).all()
    gradients = torch.autograd.grad(output.square().sum() + output.sum(), (q, k, v))
    assert all(g.isfinite().all() for g in gradients)
    measured.value("its gradient", gradients[0][:, :, 1].abs().max().item(), equals=0)


@pytest.mark.parametrize("tile", [(1, 1), (1, 2)])
def test_scores_of_a_thousand_do_not_overflow(measured: Measured, tile: tuple[int, int]) -> None:
    q, k, v = torch.ones(1, 1, 1, 1), torch.tensor([1000.0, 1001.0]), torch.tensor([0.0, 1.0])
    output = OnlineSoftmaxAttention(*tile)(q, k.view(1, 1, 2, 1), v.view(1, 1, 2, 1))
    assert torch.tensor(1000.0).exp().isinf()
    measured.value("second weight", output.item(), equals=1 / (1 + math.exp(-1)), within=1e-6)


@pytest.mark.parametrize("columns", [1, 16, 64, 512])
def test_tiling_costs_no_accuracy(measured: Measured, columns: int) -> None:
    """In float32 beside float64, with scores of size 16; the error over that of the explicit softmax."""
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 2, 512, 64, dtype=torch.float64) for _ in range(3))
    q = 16 * q / (q @ k.mT * 64**-0.5).std()
    exact, single = explicit(q, k, v), [x.float() for x in (q, k, v)]
    error = (OnlineSoftmaxAttention(64, columns)(*single) - exact).abs().max()
    plain = (explicit(*single) - exact).abs().max()
    measured.value("error / that of softmax", (error / plain).item(), below=2)


def peak(run: object, T: int, backward: bool) -> int:
    """Bytes alive at most beyond the inputs, on the meta device, which has sizes and no numbers."""
    inputs = [torch.empty(1, 1, T, 64, device="meta", requires_grad=backward) for _ in range(3)]

    def step(*inputs: Tensor) -> None:
        output = run(*inputs)
        if backward:
            torch.autograd.grad(output, inputs, torch.empty_like(output))

    return peak_bytes(step, *inputs)


@pytest.mark.parametrize("backward", [False, True])
def test_memory_at_8192_tokens_is_a_fraction_of_that_of_the_explicit_softmax(
    measured: Measured, backward: bool
) -> None:
    ours, theirs = (peak(run, 8192, backward) for run in (OnlineSoftmaxAttention(), explicit))
    measured.value("memory / explicit softmax", ours / theirs, at_most=0.05)


@pytest.mark.parametrize("backward", [False, True])
def test_memory_is_linear_in_the_length(measured: Measured, backward: bool) -> None:
    """Growth of what is added when the length doubles; a tile, the same for all lengths, drops out."""
    attend, lengths = OnlineSoftmaxAttention(128, 128), (1024, 2048, 4096)
    for name, run, times in (("tile by tile", attend, 2), ("explicit softmax", explicit, 4)):
        short, middle, long = (peak(run, T, backward) for T in lengths)
        growth = (long - middle) / (middle - short)
        measured.value(name, growth, equals=times, within=0.1)


def macs(attend: OnlineSoftmaxAttention, T: int, backward: bool = False) -> int:
    inputs = [torch.empty(1, 1, T, 1, device="meta", requires_grad=True) for _ in range(3)]
    output = attend(*inputs)
    with FlopCounterMode(display=False) as counter:
        if backward:
            torch.autograd.grad(output, inputs, torch.empty_like(output))
        else:
            attend(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("n", [8, 16])
def test_causal_tiles_in_the_future_are_skipped(measured: Measured, n: int) -> None:
    """(n + 1) / 2 n of the tiles are left."""
    causal, full = (macs(OnlineSoftmaxAttention(16, 16, is_causal), 16 * n) for is_causal in (True, False))
    measured.value("share of the tiles", causal / full, equals=(n + 1) / (2 * n))


def test_backward_takes_five_products_of_each_tile(measured: Measured) -> None:
    measured.count(macs(OnlineSoftmaxAttention(16, 16), 64) // 64**2, 2)
    measured.count(macs(OnlineSoftmaxAttention(16, 16), 64, backward=True) // 64**2, 5)


def test_half_precision_keeps_its_log_sum_exp_in_float32() -> None:
    q, k, v = (x.bfloat16() for x in tensors())
    output, lse = OnlineSoftmaxAttention().parts(q, k, v)
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v = tensors()
    attend = OnlineSoftmaxAttention()
    with pytest.raises(ValueError, match="must have four dimensions"):
        attend(q, k, v, holed(6, 9))
    with pytest.raises(TypeError, match="mask must be bool"):
        attend(q, k, v, holed(1, 1, 6, 9).long())
    with pytest.raises(ValueError, match="query_block 0 and key_block 512 must be at least 1"):
        OnlineSoftmaxAttention(query_block=0)
