"""Proofs of Luong's local attention."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.weight_assignment.hard.luong_local import LocalAttention, example
from tests.measure import Measured

Score = Callable[[Tensor, Tensor], Tensor]


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum); 0 elsewhere, or if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def naive_centres(h_t: Tensor, lengths: Sequence[int], W_p: Tensor, v_p: Tensor) -> Tensor:
    """Predicted p_t (B,T), between 0 and the length: h_t (B,T,D), W_p (k,D), v_p (k,)."""
    rows = []
    for b in range(h_t.shape[0]):
        for t in range(h_t.shape[1]):
            z = (v_p * torch.tanh(W_p @ h_t[b, t])).sum()
            rows.append(int(lengths[b]) / (1 + torch.exp(-z)))
    return torch.stack(rows).reshape(h_t.shape[:2])


def naive_luong_local(
    h_t: Tensor,
    h_s: Tensor,
    score: Score,
    D: int,
    W_p: Tensor | None = None,
    v_p: Tensor | None = None,
    mask: Tensor | None = None,
    sigma: float | None = None,
    first: int = 0,
    floor_window: bool = False,
    renormalise: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """h_t (B,T,Dt), h_s (B,S,Ds), mask (B,S), True = a real token; W_p None means local-m.

    The sentence length is the count of real tokens. floor_window centres the window (not the Gaussian) on
    floor(p_t). Returns centres (B,T), weights (B,T,S), 0 outside the window, contexts (B,T,Ds); an empty
    window (local-m beyond the sentence) gives 0. sigma may be math.inf: no Gaussian.
    """
    (B, T, _), S = h_t.shape, h_s.shape[1]
    real = torch.ones(B, S, dtype=torch.bool) if mask is None else mask
    if W_p is None:
        p = torch.tensor([[float(t + first) for t in range(T)]] * B, dtype=h_t.dtype)
    else:
        p = naive_centres(h_t, [int(real[b].sum()) for b in range(B)], W_p, v_p)
    width = D / 2 if sigma is None else sigma
    weights, contexts = [], []
    for b in range(B):
        for t in range(T):
            centre = math.floor(p.detach()[b, t]) if floor_window else float(p.detach()[b, t])
            inside = [bool(real[b, s]) and abs(s + first - centre) <= D for s in range(S)]
            a = softmax([score(h_t[b, t], h_s[b, s]) for s in range(S)], inside)
            if W_p is not None:
                a = [a[s] * torch.exp(-((s + first - p[b, t]) ** 2) / (2 * width**2)) for s in range(S)]
            if renormalise and any(inside):
                total = sum(a, p.new_zeros(()))
                a = [x / total for x in a]
            weights.append(torch.stack(a))
            contexts.append(sum((a[s] * h_s[b, s] for s in range(S)), torch.zeros_like(h_s[b, 0])))
    return p, torch.stack(weights).reshape(B, T, S), torch.stack(contexts).reshape(B, T, -1)


def build(
    B: int = 2, T: int = 4, S: int = 11, d: int = 6, w: int = 2, monotonic: bool = False
) -> tuple[LocalAttention, Tensor, Tensor]:
    """A block with random weights in float64, its queries and its keys."""
    _, (query, key) = example(B=B, T=T, S=S, d=d)
    attend = LocalAttention(d, w, monotonic).double()
    for parameter in attend.parameters():
        nn.init.normal_(parameter, std=0.7)
    return attend, query.double().requires_grad_(), key.double().requires_grad_()


def naive(
    attend: LocalAttention, query: Tensor, key: Tensor, mask: Tensor | None = None, sigma: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, weights and contexts of the naive loops with the weights of the block."""
    W_p = v_p = None
    if attend.predict is not None:
        W_p, v_p = attend.predict[0].weight, attend.predict[2].weight[0]
    score = lambda q, k: (q * (attend.W.weight.T @ k)).sum()  # noqa: E731
    return naive_luong_local(query, key, score, attend.half_width, W_p, v_p, mask, sigma)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("monotonic", [False, True])
@pytest.mark.parametrize(("T", "S", "w"), [(4, 11, 2), (9, 5, 1), (3, 4, 7)])
def test_equals_naive_reference(
    T: int, S: int, w: int, monotonic: bool, masked: bool, measured: Measured
) -> None:
    attend, query, key = build(T=T, S=S, w=w, monotonic=monotonic)
    mask = torch.arange(S) < torch.tensor([[S - 2], [S]]) if masked else None
    padding = None if mask is None else mask[:, None]
    centre, weights, output = naive(attend, query, key, mask)
    measured.close(attend.centre(query, key, padding).squeeze(2), centre)
    measured.close(attend.attention(query, key, padding), weights)
    found = attend(query, key, padding)
    measured.close(found, output)
    measured.gradients(found, output, [query, key, *attend.parameters()])


def test_the_centre_learns_through_the_gaussian_alone(measured: Measured) -> None:
    attend, query, key = build()
    assert attend.predict is not None
    parameters = list(attend.predict.parameters())
    weights, centre = attend.attention(query, key), attend.centre(query, key)
    cotangent = torch.linspace(-1, 1, weights.numel(), dtype=weights.dtype).view_as(weights)
    slope = weights.detach() * (torch.arange(11) - centre.detach()) / 1.0**2  # sigma = D / 2 = 1
    expected = torch.autograd.grad((centre * (cotangent * slope).sum(2, keepdim=True)).sum(), parameters)
    found = torch.autograd.grad((cotangent * weights).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        measured.close(a, b)
    without = (cotangent * naive(attend, query, key, sigma=math.inf)[1]).sum()
    silent = torch.autograd.grad(without, parameters, allow_unused=True)
    total = sum(gradient.abs().sum().item() for gradient in silent if gradient is not None)
    measured.value("gradient without the Gaussian", total, equals=0)


def test_weights_sum_to_less_than_one(measured: Measured) -> None:
    attend, query, key = build(B=20, T=20, S=30, w=4)
    sums = attend.attention(query, key).sum(2).detach()
    measured.value("smallest sum", sums.min().item(), at_least=math.exp(-2))
    measured.value("mean", sums.mean().item(), below=0.95)
    assert sums.max() <= 1


def test_monotonic_windows_are_cut_at_the_ends_and_sum_to_one(measured: Measured) -> None:
    attend, query, key = build(T=9, S=9, monotonic=True)
    weights = attend.attention(query, key).detach()
    measured.close(weights.sum(2), torch.ones(2, 9, dtype=weights.dtype))
    assert (weights[0] > 0).sum(1).tolist() == [3, 4, 5, 5, 5, 5, 5, 4, 3]


def test_a_monotonic_window_over_everything_is_global_attention(measured: Measured) -> None:
    attend, query, key = build(w=11, monotonic=True)
    expected = (attend.W(query) @ key.mT).softmax(2) @ key
    measured.close(attend(query, key), expected)
    measured.gradients(attend(query, key), expected, [query, key, *attend.parameters()])


def test_padding_changes_nothing(measured: Measured) -> None:
    attend, query, key = build()
    padded = torch.cat([key, torch.full((2, 5, 6), 9.0, dtype=key.dtype)], 1)
    real = (torch.arange(16) < 11).expand(2, 1, 16)
    measured.close(attend(query, padded, real), attend(query, key))


def test_a_window_moves_in_jumps(measured: Measured) -> None:
    attend = LocalAttention(1, half_width=2).double()
    assert attend.predict is not None
    nn.init.zeros_(attend.W.weight)
    nn.init.ones_(attend.predict[0].weight)
    nn.init.constant_(attend.predict[2].weight, 10.0)
    centres = torch.tensor([3.6, 3.6 + 1e-9, 4 - 1e-9, 4 + 1e-9], dtype=torch.float64)
    query = ((centres / 8).logit() / 10).atanh().view(1, 4, 1)
    weights = attend.attention(query, torch.ones(1, 8, 1, dtype=torch.float64))[0]
    measured.value("change inside", (weights[1] - weights[0]).abs().max().item(), below=1e-8)
    measured.value(
        "at an edge",
        (weights[3] - weights[2]).abs().max().item(),
        equals=math.exp(-2) / 4,
        within=1e-8,
    )


def test_the_work_does_not_depend_on_the_length_of_the_source(measured: Measured) -> None:
    for S in (64, 4096):
        attend, inputs = example(B=1, T=16, S=S, d=32, w=10)
        with FlopCounterMode(display=False) as counter:
            attend.to("meta")(*(x.to("meta") for x in inputs))
        measured.count(counter.get_total_flops() // 2, 16 * (2 * 32**2 + 32 + 2 * 21 * 32))


@pytest.mark.parametrize("monotonic", [False, True])
def test_an_empty_window_reads_zeros_and_has_finite_gradients(monotonic: bool) -> None:
    attend, query, key = build(T=9, S=4, w=1, monotonic=monotonic)
    mask = torch.ones(2, 1, 4, dtype=torch.bool)
    mask[0] = False
    output = attend(query, key, mask)
    assert not output[0].any()
    assert bool(output[1, 5:].any()) is not monotonic
    output.sum().backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in (query, key, *attend.parameters()))


def test_refuses_other_masks() -> None:
    attend, query, key = build()
    with pytest.raises(TypeError, match="mask must be bool"):
        attend(query, key, torch.ones(2, 1, 11))
    with pytest.raises(ValueError, match="three dimensions that broadcast"):
        attend(query, key, torch.ones(2, 1, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"padding \(B, S\) as padding"):
        attend(query[:, :2], key, torch.ones(2, 11, dtype=torch.bool))  # B = T: padding or (T, S)?


def test_refuses_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="half_width 0"):
        LocalAttention(4, 0)
    with pytest.raises(TypeError, match="float"):
        LocalAttention(4, 2.0)


def test_refuses_shapes_that_would_broadcast() -> None:
    attend, query, key = build()
    for wrong in (key[:1], key[..., :1], key[0]):
        with pytest.raises(ValueError, match="key"):
            attend(query, wrong)
    with pytest.raises(ValueError, match="query"):
        attend(query[0], key[0])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_monotonic_windows_stay_in_place_in_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    attend = LocalAttention(1, half_width=2, monotonic=True)
    attend = attend if autocast else attend.to(dtype)
    x = torch.zeros(1, 2100, 1, dtype=torch.float32 if autocast else dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        weights = attend.attention(x, x)[0]
    offsets = (torch.arange(2100) - torch.arange(2100)[:, None]).abs()
    assert torch.equal(weights > 0, offsets <= 2)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_predicts_centres_as_well_as_its_logits_are_known(dtype: torch.dtype, autocast: bool) -> None:
    attend, _, _ = build(d=64)
    attend, query = attend.float(), torch.randn(1, 300, 64).to(dtype).float()
    assert attend.predict is not None
    with torch.autocast("cpu", dtype, enabled=autocast):
        half = attend if autocast else attend.to(dtype)
        found = half.centre(
            query if autocast else query.to(dtype), query.expand(1, -1, -1)[:, :1].expand(1, 1000, -1)
        )
        logits = half.predict(query if autocast else query.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, 1000 * logits.double().sigmoid().float(), rtol=1e-6, atol=1e-3)


def test_backward_takes_no_memory_for_each_query_and_position() -> None:
    attend, (query, key) = example(B=1, T=64, S=4096, d=32, w=2)
    key.requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        attend(query, key).sum().backward()
    assert max(sizes) <= 4096 * 32
