"""Proofs of saliency and focus."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.foundations.saliency import Focus, Gate, MaxPooling
from tests.measure import Measured

BETAS = (0.0, 0.5, 3.0)


def softmax(e: list[Tensor]) -> list[Tensor]:
    """exp / sum over the entries, shifted by their maximum."""
    zero = e[0].new_zeros(())
    top = max(float(x.detach()) for x in e)
    exps = [torch.exp(x - top) for x in e]
    total = sum(exps, zero)
    return [x / total for x in exps]


def naive_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B,N,D) -> one-hot weights (B,N,D), first index on ties, and o (B,D)."""
    w = torch.zeros_like(x.detach())
    for b in range(x.shape[0]):
        for d in range(x.shape[2]):
            w[b, max(range(x.shape[1]), key=lambda n: float(x[b, n, d].detach())), d] = 1.0
    return w, naive_weighted(w, x)


def naive_weighted(w: Tensor, x: Tensor) -> Tensor:
    """sum_n w_nd x_nd, (B,N,D) each -> (B,D)."""
    return torch.stack([sum(w[b, n] * x[b, n] for n in range(x.shape[1])) for b in range(len(x))])


def naive_softmax_beta(x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """x (B,N,D) -> weights (B,N,D), a softmax over n in every channel, and o (B,D)."""
    D = x.shape[2]
    w = [torch.stack(softmax([beta * v for v in x[b, :, d]])) for b in range(len(x)) for d in range(D)]
    weights = torch.stack(w).reshape(len(x), D, x.shape[1]).transpose(1, 2)
    return weights, naive_weighted(weights, x)


def naive_gate(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x (B,N,D), W (D,D) rows = outputs, b (D,) -> gate (B,N,D) in (0,1) and x * gate, nothing pooled."""
    z = [[W @ v + b for v in rows] for rows in x]
    g = torch.stack([torch.stack([1 / (1 + torch.exp(-u)) for u in rows]) for rows in z])
    return g, g * x


def naive_query(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """x (B,N,D), q (B,D) -> weights (B,N) and o (B,D)."""
    w = torch.stack([torch.stack(softmax([(q[b] * v).sum() for v in x[b]])) for b in range(len(x))])
    return w, naive_weighted(w[:, :, None].expand(x.shape), x)


def features(B: int = 2, C: int = 3, H: int = 4, W: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, C, H, W, dtype=torch.float64, requires_grad=True)


def queries() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)


def rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), as the naive reference has it."""
    return x.flatten(2).mT


def gate() -> Gate:
    torch.manual_seed(3)
    return Gate(3).double()


def focus() -> Focus:
    torch.manual_seed(3)
    return Focus(3, 7).double()


def test_max_pooling_equals_naive_reference(measured: Measured) -> None:
    x, block = features(), MaxPooling()
    weights, y = naive_max(rows(x))
    measured.close(rows(block.attention(x)), weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=[x])


@pytest.mark.parametrize("beta", BETAS)
def test_soft_maximum_equals_naive_reference(measured: Measured, beta: float) -> None:
    x, block = features(), MaxPooling(beta)
    weights, y = naive_softmax_beta(rows(x), beta)
    measured.close(rows(block.attention(x)), weights)
    measured.close(block(x), y)
    measured.gradients(block(x), y, of=[x])


def test_gate_equals_naive_reference(measured: Measured) -> None:
    x, block = features(), gate()
    assert block.W.bias is not None
    gates, y = naive_gate(rows(x), block.W.weight[:, :, 0, 0], block.W.bias)
    measured.close(rows(block.attention(x)), gates)
    measured.close(rows(block(x)), y)
    measured.gradients(rows(block(x)), y, of=[x, *block.parameters()])


def test_focus_equals_naive_reference(measured: Measured) -> None:
    x, query, block = features(), queries(), focus()
    asked = query @ block.W.weight.T  # (B, T, C)
    naive = [naive_query(rows(x), asked[:, t]) for t in range(6)]
    weights, y = (torch.stack(parts, dim=1) for parts in zip(*naive, strict=True))
    measured.close(block.attention(x, query).flatten(2), weights)
    measured.close(block(x, query), y)
    measured.gradients(block(x, query), y, of=[x, query, *block.parameters()])


def test_max_pooling_equals_torch(measured: Measured) -> None:
    x, block = features(), MaxPooling()
    public = F.adaptive_max_pool2d(x, 1).flatten(1)
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=[x])


def test_gate_equals_torch_glu(measured: Measured) -> None:
    x, block = features(), gate()
    public = F.glu(torch.cat([x, block.W(x)], dim=1), dim=1)
    measured.close(block(x), public)
    measured.gradients(block(x), public, of=[x, *block.parameters()])


def test_focus_equals_torch_attention(measured: Measured) -> None:
    x, query, block = features(), queries(), focus()
    public = F.scaled_dot_product_attention(block.W(query), rows(x), rows(x), scale=1.0)
    measured.close(block(x, query), public)
    measured.gradients(block(x, query), public, of=[x, query, *block.parameters()])


def test_gradient_of_max_pooling_goes_to_one_of_two_equal_values(measured: Measured) -> None:
    x = torch.tensor([5.0, 1.0, 5.0], dtype=torch.float64).view(1, 1, 1, 3).requires_grad_()
    (ours,) = torch.autograd.grad(MaxPooling()(x).sum(), x)
    (shared,) = torch.autograd.grad(x.amax(dim=(2, 3)).sum(), x)
    for gradient, reached in ((ours, 1), (shared, 2)):
        measured.count(int(gradient.count_nonzero()), reached)
        measured.value("sum", gradient.sum().item(), equals=1)


def test_soft_maximum_climbs_from_mean_to_maximum(measured: Measured) -> None:
    x = torch.arange(4.0, dtype=torch.float64).view(1, 1, 2, 2)
    expected = {0: 1.5, 0.5: 2.0846, 1: 2.4927, 2: 2.8448, 5: 2.9932, math.inf: 3}
    for beta, value in expected.items():
        found = MaxPooling(beta)(x).item()
        measured.value("of 0, 1, 2, 3", found, equals=value, within=5e-5)


def test_weights_are_the_gradient_of_log_sum_exp(measured: Measured) -> None:
    x = features()
    (gradient,) = torch.autograd.grad((3 * x).flatten(2).logsumexp(dim=2).sum() / 3, x)
    measured.close(MaxPooling(3).attention(x), gradient)


def test_pooling_and_focus_have_distributions_gates_do_not(measured: Measured) -> None:
    x, query = features(), queries()
    for beta in (*BETAS, math.inf):
        sums = MaxPooling(beta).attention(x).sum(dim=(2, 3))
        measured.close(sums, torch.ones_like(sums))
    sums = focus().attention(x, query).sum(dim=(2, 3))
    measured.close(sums, torch.ones_like(sums))
    low, high = gate().attention(x).sum(dim=(2, 3)).aminmax()
    for total in (low, high):
        measured.value("|Σ gates − 1|", abs(total.item() - 1), above=0.5)


def test_max_pooling_and_focus_stay_within_the_values(measured: Measured) -> None:
    x, query = features(), queries()
    low, high = x.amin(dim=(2, 3)), x.amax(dim=(2, 3))
    outputs = [MaxPooling(beta)(x)[:, None] for beta in (*BETAS, math.inf)] + [focus()(x, query)]
    for y in outputs:
        for place in ((y - low[:, None]) / (high - low)[:, None]).aminmax():
            measured.value(
                "place between smallest and largest", place.item(), at_least=-1e-12, at_most=1 + 1e-12
            )


def test_positions_may_change_places(measured: Measured) -> None:
    x, query = features(), queries()
    order = torch.randperm(20)
    moved = x.flatten(2)[:, :, order].view_as(x)
    for beta in (1.0, math.inf):
        measured.close(MaxPooling(beta)(moved), MaxPooling(beta)(x))
    measured.close(focus()(moved, query), focus()(x, query))
    measured.close(gate()(moved), gate()(x).flatten(2)[:, :, order].view_as(x))


def test_a_gate_knows_its_own_position_only(measured: Measured) -> None:
    x = features().detach()
    changed = x.clone()
    changed[:, :, 1, 2] += 5
    difference = (gate()(changed) - gate()(x)).abs().amax(dim=(0, 1))
    measured.count(int((difference > 0).sum()), 1)
    query = queries()
    influenced = focus().attention(changed, query) != focus().attention(x, query)
    measured.count(int(influenced[0, 0].sum()), 20)


def test_each_query_is_answered_by_itself(measured: Measured) -> None:
    x, query, block = features(), queries(), focus()
    order = torch.randperm(6)
    measured.close(block(x, query[:, order]), block(x, query)[:, order])
    a, b = block.attention(x, 9 * query)[0, :2].flatten(1)
    measured.value("shared weight", torch.minimum(a, b).sum().item(), below=0.5)


def test_query_of_zeros_reads_the_mean(measured: Measured) -> None:
    x, query = features(), queries()
    measured.close(focus()(x, 0 * query), x.mean(dim=(2, 3))[:, None].expand(-1, 6, -1))


def test_parameters_and_multiply_adds_of_the_three(measured: Measured) -> None:
    with torch.device("meta"):
        x, query = torch.empty(1, 256, 28, 28), torch.empty(1, 1, 512)
        for block, inputs, parameters, macs in (
            (MaxPooling(), (x,), 0, 0),
            (Gate(256), (x,), 256**2 + 256, 256**2 * 28**2),
            (Focus(256, 512), (x, query), 512 * 256, 512 * 256 + 2 * 256 * 28**2),
        ):
            measured.count(count(block), parameters)
            with FlopCounterMode(display=False) as counter:
                block(*inputs)
            measured.count(counter.get_total_flops() // 2, macs)


def count(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize("beta", [-1.0, math.nan])
def test_beta_must_not_be_negative(beta: float) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        MaxPooling(beta)


def test_widths_must_be_positive() -> None:
    with pytest.raises(ValueError, match="channels 0 must be at least 1"):
        Gate(0)
    with pytest.raises(ValueError, match="query_dim 0 must be at least 1"):
        Focus(3, 0)


def test_refuses_maps_and_queries_that_do_not_fit() -> None:
    x, query = features(), queries()
    for beta in (1.0, math.inf):
        for other in (x[0], x[:, :, None]):
            with pytest.raises(ValueError, match=r"must be \(B, C, H, W\)"):
                MaxPooling(beta).attention(other)
    for maps, asked in ((x, query[:1]), (x[:1], query), (x, query[0]), (x, query[:, None])):
        with pytest.raises(ValueError, match=r"must be \(B, T, D\)"):
            focus().attention(maps, asked)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_maximum_of_half_precision_is_as_sharp_as_that_of_double(dtype: torch.dtype) -> None:
    x = (30 * torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))).to(dtype)
    for beta in (0.7, 1e4):
        exact = MaxPooling(beta).attention(x.double())
        assert (MaxPooling(beta).attention(x) - exact).abs().max() < torch.finfo(dtype).eps


def test_scores_of_a_focus_beyond_float16_are_right() -> None:
    torch.manual_seed(0)
    block, x, query = Focus(512, 512), 200 * torch.randn(1, 512, 3, 2), 200 * torch.randn(1, 4, 512)
    exact = block.double().attention(x.double(), query.double())
    for autocast, dtype in ((False, torch.float16), (True, torch.float32)):
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            weights = block.to(dtype).attention(x.to(dtype), query.to(dtype))
        assert weights.dtype == dtype
        assert (weights - exact).abs().max() < 1e-2
