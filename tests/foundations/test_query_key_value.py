"""Proofs of query, key, value."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.foundations.query_key_value import (
    Additive,
    Attention,
    Bilinear,
    dot,
    example,
    read,
    scaled_dot,
    weigh,
)
from tests.measure import Measured

Score = Callable[[Tensor, Tensor], Tensor]


def score_dot(q: Tensor, k: Tensor) -> Tensor:
    return sum((q[d] * k[d] for d in range(len(q))), q.new_zeros(()))


def score_scaled_dot(q: Tensor, k: Tensor) -> Tensor:
    return score_dot(q, k) / math.sqrt(len(k))


def score_general(q: Tensor, k: Tensor, W: Tensor) -> Tensor:
    """q^T W k, W (Dq, Dk)."""
    return sum((q[i] * W[i, j] * k[j] for i in range(len(q)) for j in range(len(k))), q.new_zeros(()))


def score_additive(
    q: Tensor, k: Tensor, v: Tensor, W_q: Tensor, W_k: Tensor, b: Tensor | None = None
) -> Tensor:
    """v^T tanh(W_q q + W_k k (+ b)), v (Da,), W_q (Da, Dq), W_k (Da, Dk), b (Da,)."""
    total = q.new_zeros(())
    for a in range(len(v)):
        inner = score_dot(W_q[a], q) + score_dot(W_k[a], k)
        total = total + v[a] * torch.tanh(inner if b is None else inner + b[a])
    return total


SCORES = {
    "dot": score_dot,
    "scaled_dot": score_scaled_dot,
    "general": score_general,
    "additive": score_additive,
}


def softmax_over_keys(scores: list[Tensor], allowed: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed keys; the others get exactly 0 (so does a row with none allowed)."""
    zero = scores[0].new_zeros(())
    exps = [torch.exp(e) if ok else zero for e, ok in zip(scores, allowed, strict=True)]
    total = sum(exps, zero)
    return [x / total if ok else zero for x, ok in zip(exps, allowed, strict=True)]


def naive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
    **weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """query (B,T,Dq), key (B,S,Dk), value (B,S,Dv), mask broadcastable to (B,T,S), True = may be attended.

    `score` is a name in SCORES or a callable on two vectors; `weights` are its keyword tensors.
    Returns weights (B,T,S) and output (B,T,Dv).
    """
    fn = SCORES[score] if isinstance(score, str) else score
    (B, T, _), S = query.shape, key.shape[1]
    may = torch.ones(B, T, S, dtype=torch.bool) if mask is None else mask.expand(B, T, S)
    rows, outs = [], []
    for b in range(B):
        for t in range(T):
            e = [fn(query[b, t], key[b, s], **weights) for s in range(S)]
            a = softmax_over_keys(e, [bool(may[b, t, s]) for s in range(S)])
            rows.append(torch.stack(a))
            outs.append(sum((a[s] * value[b, s] for s in range(S)), torch.zeros_like(value[b, 0])))
    return torch.stack(rows).reshape(B, T, S), torch.stack(outs).reshape(B, T, -1)


def inputs(d_q: int, d_k: int, T: int = 3, S: int = 5, d_v: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    sizes = ((T, d_q), (S, d_k), (S, d_v))
    query, key, value = (torch.randn(2, *size, dtype=torch.float64, requires_grad=True) for size in sizes)
    return query, key, value


def random_mask(*shape: int) -> Tensor:
    """A bool mask whose first row allows nothing."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[..., 0, :] = False
    return mask


def bilinear(d_q: int = 6, d_k: int = 7) -> Bilinear:
    torch.manual_seed(3)
    return Bilinear(d_q, d_k).double()


def additive(d_q: int = 6, d_k: int = 7, d_a: int = 8) -> Additive:
    torch.manual_seed(3)
    return Additive(d_q, d_k, d_a).double()


def compare(
    measured: Measured, score: Score, name: str, d_k: int, mask: Tensor | None, **named: Tensor
) -> None:
    attention, (query, key, value) = Attention(score).double(), inputs(6, d_k)
    weights, y = naive_attention(query, key, value, name, mask, **named)
    measured.close(attention.attention(query, key, value, mask), weights)
    measured.close(attention(query, key, value, mask), y)
    of = (query, key, value, *attention.parameters())
    measured.gradients(attention(query, key, value, mask), y, of=of)


MASKS = pytest.mark.parametrize("mask", [None, random_mask(2, 3, 5), random_mask(1, 3, 5)])


@MASKS
def test_dot_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    compare(measured, dot, "dot", 6, mask)


@MASKS
def test_scaled_dot_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    compare(measured, scaled_dot, "scaled_dot", 6, mask)


@MASKS
def test_bilinear_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    score = bilinear()
    compare(measured, score, "general", 7, mask, W=score.W.weight.T)


@MASKS
def test_additive_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    score = additive()
    named = {"v": score.v.weight[0], "W_q": score.W_q.weight, "W_k": score.W_k.weight}
    compare(measured, score, "additive", 7, mask, **named)


@pytest.mark.parametrize(("score", "scale"), [(dot, 1.0), (scaled_dot, None)])
def test_dot_products_equal_torch(measured: Measured, score: Score, scale: float | None) -> None:
    query, key, value = inputs(6, 6)
    mask = random_mask(2, 3, 5)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    measured.close(Attention(score)(query, key, value, mask), expected)
    measured.gradients(Attention(score)(query, key, value, mask), expected, of=(query, key, value))


def test_bilinear_equals_torch(measured: Measured) -> None:
    (query, key, _), score = inputs(6, 7), bilinear()
    public = nn.Bilinear(7, 6, 1, bias=False).double()
    with torch.no_grad():
        public.weight.copy_(score.W.weight[None])
    pairs = key[:, None].expand(-1, 3, -1, -1), query[:, :, None].expand(-1, -1, 5, -1)
    expected = public(*(side.contiguous() for side in pairs)).squeeze(-1)
    measured.close(score(query, key), expected)
    measured.gradients(score(query, key), expected, of=(query, key))


def test_weights_are_a_distribution_over_the_keys(measured: Measured) -> None:
    query, key, _ = inputs(6, 7)
    weights = Attention(additive()).attention(query, key)
    measured.close(weights.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    measured.value("smallest weight", weights.min().item(), above=0)


def test_output_lies_between_the_values(measured: Measured) -> None:
    query, key, value = inputs(6, 7, T=40)
    y = Attention(lambda q, k: 3 * bilinear()(q, k))(query, key, value)
    low, high = value.amin(dim=1, keepdim=True), value.amax(dim=1, keepdim=True)
    place = (y - low) / (high - low)
    measured.value("lowest", place.min().item(), at_least=0)
    measured.value("highest", place.max().item(), at_most=1)


def test_keys_and_values_may_change_places_together(measured: Measured) -> None:
    (query, key, value), attention = inputs(6, 7), Attention(additive())
    order = torch.tensor([3, 0, 4, 1, 2])
    measured.close(attention(query, key[:, order], value[:, order]), attention(query, key, value))
    assert not torch.allclose(attention(query, key[:, order], value), attention(query, key, value))


def test_a_number_added_to_all_scores_of_a_query_changes_nothing(measured: Measured) -> None:
    query, key, value = inputs(6, 7)
    shift = torch.tensor([-9.0, 2.0, 50.0], dtype=torch.float64)[:, None]
    shifted = Attention(lambda q, k: bilinear()(q, k) + shift)
    measured.close(shifted(query, key, value), Attention(bilinear())(query, key, value))


def test_concat_is_additive(measured: Measured) -> None:
    (query, key, _), score = inputs(6, 7), additive()
    W = torch.cat([score.W_q.weight, score.W_k.weight], dim=1)  # v^T tanh(W [q; k])
    pairs = torch.cat([query[:, :, None].expand(2, 3, 5, 6), key[:, None].expand(2, 3, 5, 7)], dim=-1)
    concat = (pairs @ W.T).tanh() @ score.v.weight[0]
    measured.close(score(query, key), concat)


def test_bilinear_is_a_dot_product_of_projections(measured: Measured) -> None:
    (query, key, _), score = inputs(6, 7), bilinear()
    A, B = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    with torch.no_grad():
        score.W.weight.copy_(B.T @ A)
    measured.close(score(query, key), dot(query @ A.T, key @ B.T))
    same = bilinear(6, 6)
    nn.init.eye_(same.W.weight)
    measured.close(same(query, query.flip(1)), dot(query, query.flip(1)))


def test_cold_scores_pick_one_value_and_zero_scores_average_all(measured: Measured) -> None:
    query, key, value = inputs(6, 6)
    best = dot(query, key).argmax(dim=-1)
    picked = torch.stack([value[b, best[b]] for b in range(2)])
    measured.close(Attention(lambda q, k: 1e4 * dot(q, k))(query, key, value), picked)
    mean = value.mean(dim=1, keepdim=True).expand(2, 3, 4)
    measured.close(Attention(dot)(0 * query, key, value), mean)


def test_gaussian_kernel_is_dot_for_keys_of_one_length(measured: Measured) -> None:
    query, key, value = inputs(6, 6)
    key = 2 * F.normalize(key, dim=-1)
    gaussian = Attention(lambda q, k: -torch.cdist(q, k).square() / 2)
    measured.close(gaussian(query, key, value), Attention(dot)(query, key, value))


def test_scaling_keeps_the_variance_of_scores(measured: Measured) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(4, 400, 64), torch.randn(4, 400, 64)
    measured.value("Var(q·k), d = 64", dot(query, key).var().item(), equals=64, within=1)
    measured.value("Var(q·k / √d)", scaled_dot(query, key).var().item(), equals=1, within=0.02)


def test_scaling_keeps_the_entropy_of_weights(measured: Measured) -> None:
    torch.manual_seed(0)
    for d, unscaled in ((4, 2.27), (64, 0.499), (512, 0.160)):
        query, key = torch.randn(40, 200, d), torch.randn(40, 32, d)
        for name, score, expected in (("dot", dot, unscaled), ("scaled", scaled_dot, 3.0)):
            entropy = torch.special.entr(Attention(score).attention(query, key)).sum(dim=-1).mean().item()
            measured.value(f"{name}, d = {d}", entropy, equals=expected, within=0.04)


def test_softmax_has_the_known_jacobian(measured: Measured) -> None:
    scores = torch.randn(5, dtype=torch.float64)
    a = weigh(scores)
    jacobian = torch.autograd.functional.jacobian(weigh, scores)
    measured.close(jacobian, a.diag() - a.outer(a))


def test_masking_a_key_equals_deleting_it(measured: Measured) -> None:
    (query, key, value), attention = inputs(6, 7), Attention(additive())
    mask = torch.tensor([True, False, True, True, False])
    deleted = attention(query, key[:, mask], value[:, mask])
    measured.close(attention(query, key, value, mask[None, None]), deleted)


def test_query_without_keys_reads_zeros(measured: Measured) -> None:
    (query, key, value), attention = inputs(6, 7), Attention(additive())
    mask = torch.tensor([True, False, True])[None, :, None]
    y = attention(query, key, value, mask)
    measured.close(y[:, 1], torch.zeros(2, 4, dtype=torch.float64), tolerance=0)
    gradients = torch.autograd.grad(y.square().sum(), (query, key, value, *attention.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_values_the_keys_are_read(measured: Measured) -> None:
    (query, key, _), attention = inputs(6, 7), Attention(additive())
    measured.close(attention(query, key), read(attention.attention(query, key), key), tolerance=0)


def test_parameters_follow_the_formulas(measured: Measured) -> None:
    measured.count(sum(p.numel() for p in bilinear(6, 7).parameters()), 6 * 7)
    measured.count(sum(p.numel() for p in additive(6, 7, 8).parameters()), 8 * (6 + 7 + 1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bilinear(0, 4), "query_dim 0"),
        (lambda: Bilinear(4, 0), "key_dim 0"),
        (lambda: Additive(4, 4, 0), "hidden_dim 0"),
    ],
)
def test_refuses_impossible_arguments(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("shape", [(3, 5), (5,), (2, 3, 3), (1, 2, 3, 5)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    attention, (query, key, value) = example()
    for call in (attention, attention.attention):
        with pytest.raises(ValueError, match="three dimensions that broadcast"):
            call(query, key, value, torch.ones(shape, dtype=torch.bool))


def test_refuses_padding_in_place_of_a_mask_of_pairs() -> None:
    """With as many samples as queries a padding mask (B, S) has the shape (T, S)."""
    attention, (query, key, value) = example(B=3, T=3)
    real = torch.arange(5) < torch.tensor([[5], [4], [3]])
    with pytest.raises(ValueError, match=r"padding\[:, None\]"):
        attention(query, key, value, real)
    assert not attention.attention(query, key, mask=real[:, None])[2, :, 3:].any()


def test_refuses_masks_that_are_not_bool() -> None:
    attention, (query, key, value) = example()
    with pytest.raises(TypeError, match="True = may be attended"):
        attention(query, key, value, torch.zeros(2, 3, 5))


def test_refuses_keys_and_values_that_do_not_fit() -> None:
    attention, (query, key, value) = Attention(dot), inputs(6, 6)
    for other in (value[:, :4], value[:1], value[0]):
        with pytest.raises(ValueError, match="with B and S of key"):
            attention(query, key, other)
    for asked, held in ((query[:1], key), (query, key[:1]), (query[0], key), (query, key[0])):
        for call in (attention, attention.attention):
            with pytest.raises(ValueError, match=r"must be \(B, T, d_q\)"):
                call(asked, held)


def test_dot_products_beyond_float16_are_right() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, n, 512) * 60 for n in (3, 5, 5))
    assert dot(query, key).abs().max() > 65504
    exact = Attention(dot).attention(query.double(), key.double())
    for autocast, dtype in ((False, torch.float16), (True, torch.float32)):
        tensors = [x.to(dtype) for x in (query, key, value)]
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            weights, y = Attention(dot).attention(*tensors), Attention(dot)(*tensors)
        assert weights.dtype == dtype
        assert y.isfinite().all()
        assert (weights - exact).abs().max() < 1e-2
