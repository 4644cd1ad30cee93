"""Proofs of criss-cross attention."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.against_mmcv import public_criss_cross
from snippets.attention_domain.spatial.criss_cross import CrissCrossAttention
from tests.measure import Measured
from tests.memory import peak_bytes
from tests.resnet import parameters


def naive_weights(x: Tensor, w_q: Tensor, b_q: Tensor, w_k: Tensor, b_k: Tensor) -> Tensor:
    """A_u = joint softmax over row and column of u = (r, c) of q_u . k_omega; H+W-1 slots, no scaling.

    x (B, C, H, W); w_q, w_k (C/8, C), b_q, b_k (C/8,). Returns (B, H, W, H + W): slots 0..H-1 are the column
    (the slot of the centre itself, index r, is exactly 0), H..H+W-1 the row (index H + c is the centre).
    """
    n_b, _, n_h, n_w = x.shape
    q = torch.einsum("pc,bchw->bphw", w_q, x) + b_q[None, :, None, None]
    k = torch.einsum("pc,bchw->bphw", w_k, x) + b_k[None, :, None, None]
    cells = []
    for b in range(n_b):
        for r in range(n_h):
            for c in range(n_w):
                support = [(i, c) for i in range(n_h) if i != r] + [(r, j) for j in range(n_w)]
                s = torch.stack([(q[b, :, r, c] * k[b, :, i, j]).sum() for i, j in support])
                e = torch.exp(s - s.max().detach())
                a = e / e.sum()
                # put back the empty column slot of the centre
                cells.append(torch.cat([a[:r], a.new_zeros(1), a[r:]]))
    return torch.stack(cells).reshape(n_b, n_h, n_w, n_h + n_w)


def naive_dense(a: Tensor) -> Tensor:
    """The same weights (B, H, W, H + W) as a dense (B, N, N) matrix, 0 off the cross, n = r * W + c."""
    n_b, n_h, n_w, _ = a.shape
    dense = a.new_zeros(n_b, n_h, n_w, n_h, n_w)
    for r in range(n_h):
        for c in range(n_w):
            dense[:, r, c, :, c] += a[:, r, c, :n_h]
            dense[:, r, c, r, :] += a[:, r, c, n_h:]
    return dense.reshape(n_b, n_h * n_w, n_h * n_w)


def naive_criss_cross(
    x: Tensor,
    w_q: Tensor,
    b_q: Tensor,
    w_k: Tensor,
    b_k: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    gamma: Tensor,
    recurrence: int = 1,
) -> Tensor:
    """H'_u = gamma * sum_omega A_u,omega v_omega + H_u, applied R = recurrence times with shared weights.

    w_v (C, C), b_v (C,), scalar gamma; the others as in naive_weights. A is recomputed at each pass.
    """
    for _ in range(recurrence):
        n_b, _, n_h, n_w = x.shape
        a = naive_weights(x, w_q, b_q, w_k, b_k)
        v = torch.einsum("dc,bchw->bdhw", w_v, x) + b_v[None, :, None, None]
        cells = []
        for b in range(n_b):
            for r in range(n_h):
                for c in range(n_w):
                    column = torch.einsum("i,di->d", a[b, r, c, :n_h], v[b, :, :, c])
                    row = torch.einsum("j,dj->d", a[b, r, c, n_h:], v[b, :, r, :])
                    cells.append(column + row)
        o = torch.stack(cells).reshape(n_b, n_h, n_w, -1).permute(0, 3, 1, 2)
        x = gamma * o + x
    return x


def small(
    size: tuple[int, int, int, int] = (2, 8, 3, 4), reduction: int = 4, recurrence: int = 1
) -> tuple[CrissCrossAttention, Tensor]:
    torch.manual_seed(1)
    block = CrissCrossAttention(size[1], reduction, recurrence)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double().eval(), torch.randn(size, dtype=torch.float64, requires_grad=True)


def tensors(block: CrissCrossAttention) -> tuple[Tensor, ...]:
    """Weights and biases in the order of the naive reference."""
    layers = block.query, block.key, block.value
    return tuple(t for layer in layers for t in (layer.weight.flatten(1), layer.bias))


def cross(height: int, width: int) -> Tensor:
    """(N, N), True where two positions share a row or a column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    same = [place.flatten()[:, None] == place.flatten() for place in (rows, columns)]
    return same[0] | same[1]


def dense_pass(block: CrissCrossAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """One pass of ordinary attention over all positions under a mask, by torch's own kernel."""
    query, key, value = (layer(x).flatten(2).mT for layer in (block.query, block.key, block.value))
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    return x + block.gamma * y.mT.view_as(x)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
@pytest.mark.parametrize("size", [(2, 8, 3, 4), (1, 4, 1, 5), (1, 4, 3, 1), (1, 4, 1, 1)], ids=str)
def test_equals_naive_reference(measured: Measured, size: tuple[int, int, int, int], recurrence: int) -> None:
    block, x = small(size, recurrence=recurrence)
    measured.close(block.attention(x), naive_weights(x, *tensors(block)[:4]))
    y, expected = block(x), naive_criss_cross(x, *tensors(block), block.gamma, recurrence)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(x, *block.parameters()))


@pytest.mark.parametrize("recurrence", [1, 2])
def test_equals_dense_attention_under_a_mask(measured: Measured, recurrence: int) -> None:
    block, x = small((2, 16, 6, 9), recurrence=recurrence)
    expected: Tensor = x
    for _ in range(recurrence):
        expected = dense_pass(block, expected, mask=cross(6, 9))
    measured.close(block(x), expected)
    measured.gradients(block(x), expected, of=(x, *block.parameters()))


def test_equals_mmcv(measured: Measured) -> None:
    public = public_criss_cross()(16).double()
    block, x = small((2, 16, 6, 9), reduction=8)
    named = {f"{key.replace('.', '_conv.')}": t for key, t in block.named_parameters() if key != "gamma"}
    expected = torch.func.functional_call(public, {**named, "gamma.scale": block.gamma}, x)
    measured.close(block(x), expected)
    measured.gradients(block(x), expected, of=(x, *block.parameters()))


def reached(block: CrissCrossAttention, x: Tensor) -> Tensor:
    """(N, N), True where the output at a position (row) has a slope in the input at another (column)."""
    jacobian = torch.autograd.functional.jacobian(lambda x: block(x).sum(dim=1).flatten(), x)
    return (jacobian != 0).any(dim=2).any(dim=1).flatten(1)


def test_one_pass_reaches_the_cross_two_reach_everything(measured: Measured) -> None:
    block, x = small((1, 8, 4, 6))
    after_one = reached(block, x)
    assert torch.equal(after_one, cross(4, 6))
    measured.count(int(after_one.sum()), 24 * (4 + 6 - 1))
    block.recurrence = 2
    measured.count(int(reached(block, x).sum()), 24 * 24)


def test_two_routes_lead_to_a_position_off_the_cross(measured: Measured) -> None:
    block, x = small((1, 8, 4, 6))
    step = naive_dense(block.attention(x))[0] > 0
    routes = step.long() @ step.long()
    off = ~cross(4, 6)
    assert off.sum() == 24 * 3 * 5
    low, high = routes[off].aminmax()
    measured.count(int(low), 2)
    measured.count(int(high), 2)


def test_own_position_counts_once(measured: Measured) -> None:
    block, x = small((2, 8, 4, 6))
    weights = block.attention(x)
    measured.close(weights.sum(dim=-1), torch.ones(2, 4, 6, dtype=torch.float64))
    measured.count(int((weights > 0).sum(dim=-1).unique().item()), 4 + 6 - 1)
    nn.init.zeros_(block.query.weight)
    nn.init.zeros_(block.query.bias)
    own = naive_dense(block.attention(x)).diagonal(dim1=1, dim2=2)
    measured.close(own, torch.full_like(own, 1 / 9))


def test_rows_and_columns_permute_but_not_positions(measured: Measured) -> None:
    block, x = small((2, 8, 4, 6), recurrence=2)
    rows, columns = torch.randperm(4), torch.randperm(6)
    measured.close(block(x[:, :, rows][..., columns]), block(x)[:, :, rows][..., columns])
    measured.close(block(x.mT), block(x).mT)
    order = torch.randperm(24)
    permuted = block(x.flatten(2)[..., order].view_as(x))
    assert (permuted - block(x).flatten(2)[..., order].view_as(x)).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(2, 8, 1, 7), (2, 8, 7, 1)], ids=str)
def test_a_single_line_is_ordinary_self_attention(
    measured: Measured, size: tuple[int, int, int, int]
) -> None:
    block, x = small(size)
    measured.close(block(x), dense_pass(block, x, mask=None))


def test_starts_as_the_identity(measured: Measured) -> None:
    x = torch.randn(2, 16, 5, 7)
    measured.close(CrissCrossAttention(16)(x), x, tolerance=0)


@pytest.mark.parametrize(("channels", "expected"), [(64, 5_201), (256, 82_241), (512, 328_321)])
def test_recurrence_adds_no_parameters(measured: Measured, channels: int, expected: int) -> None:
    for recurrence in (1, 2, 5):
        measured.count(parameters(CrissCrossAttention(channels, recurrence=recurrence)), expected)


def test_saves_85_percent_of_the_operations(measured: Measured) -> None:
    """At 97 x 97 positions and C = 512, two passes against one of all pairs with the same projections."""
    with torch.device("meta"):
        block, x = CrissCrossAttention(512), torch.empty(1, 512, 97, 97)
    counted = []
    for run in (block, lambda x: dense_pass(block, x, mask=None)):
        with FlopCounterMode(display=False) as counter:
            run(x)
        counted.append(counter.get_total_flops())
    for name, flops in zip(("criss-cross, GFLOP", "all pairs, GFLOP"), counted, strict=True):
        measured.value(name, flops / 1e9, above=0)
    measured.value("saved", 1 - counted[0] / counted[1], equals=0.85, within=0.005)


def test_memory_is_that_of_the_cross(measured: Measured) -> None:
    """The map of weights has N (H + W) entries, and no step allocates one of N x N."""
    block = CrissCrossAttention(16)
    small_map, large_map = torch.randn(1, 16, 32, 32), torch.randn(1, 16, 64, 64)
    with torch.no_grad():
        growth = peak_bytes(block, large_map) / peak_bytes(block, small_map)
        measured.value("bytes(64²) / bytes(32²)", growth, above=4, below=8.1)
        share = peak_bytes(block, large_map) / (4 * 4096**2)
    measured.value("bytes(64²) / bytes of 4,096 × 4,096", share, below=0.2)
    measured.count(block.attention(large_map).numel(), 4096 * 128)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_runs_in_any_dtype(dtype: torch.dtype) -> None:
    block, x = CrissCrossAttention(8).to(dtype), torch.randn(2, 8, 3, 5, dtype=dtype)
    nn.init.ones_(block.gamma)
    block(x).sum().backward()
    assert block(x).dtype == dtype
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels 0"),
        ((64, 0), "reduction 0"),
        ((64, 8, 0), "recurrence 0 must be at least 1"),
        ((65,), "channels 65 must be divisible by reduction 8"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrissCrossAttention(*arguments)


@pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"])
def test_scores_beyond_65504_in_float16(autocast: bool) -> None:
    torch.manual_seed(1)
    block, x = CrissCrossAttention(64), 30 * torch.randn(1, 64, 5, 7).relu()
    nn.init.ones_(block.query.weight)
    block.key.load_state_dict(block.query.state_dict())
    exact = copy.deepcopy(block).double().attention(x.double())
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        weights = block.attention(x) if autocast else block.half().attention(x.half())
    assert torch.equal(weights.argmax(dim=-1), exact.argmax(dim=-1))
    torch.testing.assert_close(weights.sum(dim=-1).float(), torch.ones(1, 5, 7), atol=1e-2, rtol=0)


def test_refuses_passes_that_are_no_whole_number() -> None:
    with pytest.raises(TypeError, match="float"):
        CrissCrossAttention(64, recurrence=2.0)
