"""Proofs of plain and key-value soft attention."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.weight_assignment.soft.key_value import KeyValueAttention, example
from tests.measure import Measured

EXCEPTIONS = {
    "test_every_parameter_receives_a_gradient": {
        "key_value:masked_query": "a query is given, so the learned one, the only parameter, is not used",
    },
}
"""Checks of the contract that it cannot pass, with the reason."""

Score = Callable[[Tensor, Tensor], Tensor]


def score_dot(k: Tensor, q: Tensor) -> Tensor:
    return sum((k[d] * q[d] for d in range(len(q))), q.new_zeros(()))


def score_scaled_dot(k: Tensor, q: Tensor) -> Tensor:
    return score_dot(k, q) / math.sqrt(len(k))


def softmax(e: list[Tensor], ok: list[bool]) -> list[Tensor]:
    """exp / sum over the allowed entries (shifted by their maximum); 0 elsewhere, or if none is allowed."""
    zero = e[0].new_zeros(())
    top = max((float(x.detach()) for x, k in zip(e, ok, strict=True) if k), default=0.0)
    exps = [torch.exp(x - top) if k else zero for x, k in zip(e, ok, strict=True)]
    total = sum(exps, zero)
    return [x / total if k else zero for x, k in zip(exps, ok, strict=True)]


def naive_key_value(
    K: Tensor, V: Tensor, q: Tensor, score: Score = score_scaled_dot, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """K (B,N,Dk), V (B,N,Dv), q (B,Dq), mask (B,N), True = may be attended -> alpha (B,N), read (B,Dv)."""
    alphas, reads = [], []
    for b in range(K.shape[0]):
        ok = [True] * K.shape[1] if mask is None else mask[b].tolist()
        a = softmax([score(K[b, n], q[b]) for n in range(K.shape[1])], ok)
        alphas.append(torch.stack(a))
        reads.append(sum((a[n] * V[b, n] for n in range(K.shape[1])), torch.zeros_like(V[b, 0])))
    return torch.stack(alphas), torch.stack(reads)


def naive_plain(
    X: Tensor, q: Tensor, score: Score = score_scaled_dot, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """X (B,N,D), q (B,Dq), mask (B,N) -> alpha (B,N), read (B,D): the scored vectors are the ones read."""
    return naive_key_value(X, X, q, score, mask)


def naive_hard(alpha: Tensor, V: Tensor) -> Tensor:
    """v at the (first) largest weight of each sample; alpha (B,N), V (B,N,Dv) -> (B,Dv)."""
    picks = [max(range(len(a)), key=a.tolist().__getitem__) for a in alpha.detach()]
    return torch.stack([V[b, n] for b, n in enumerate(picks)])


def naive_multi_query(
    K: Tensor, V: Tensor, Q: Tensor, score: Score = score_scaled_dot, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Q (B,M,Dq) -> alpha (B,M,N), concatenated reads (B,M*Dv)."""
    each = [naive_key_value(K, V, Q[:, m], score, mask) for m in range(Q.shape[1])]
    return torch.stack([a for a, _ in each], dim=1), torch.cat([r for _, r in each], dim=1)


def inputs(S: int = 5, d_k: int = 6, d_v: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and queries of three sets, float64."""
    torch.manual_seed(1)
    shapes = ((3, S, d_k), (3, S, d_v), (3, d_k))
    key, value, query = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return key, value, query


def attend(d_k: int = 6) -> KeyValueAttention:
    torch.manual_seed(2)
    return KeyValueAttention(d_k).double()


def masks(S: int = 5) -> list[Tensor | None]:
    """No mask, and one with holes that allows the second set nothing."""
    mask = torch.arange(3 * S).view(3, S) % 3 != 1
    mask[1] = False
    return [None, mask]


@pytest.mark.parametrize(("S", "d_k", "d_v"), [(5, 6, 4), (1, 3, 2), (8, 1, 7)])
@pytest.mark.parametrize("masked", [0, 1])
def test_key_value_mode_equals_naive_reference(
    measured: Measured, S: int, d_k: int, d_v: int, masked: int
) -> None:
    (key, value, query), mask, block = inputs(S, d_k, d_v), masks(S)[masked], attend(d_k)
    learned = block.query.expand(3, -1)
    for given, asked in ((query, query), (None, learned)):
        alpha, read = naive_key_value(key, value, asked, mask=mask)
        of = (key, value, block.query if given is None else query)
        measured.close(block.attention(key, value, given, mask), alpha)
        measured.close(block(key, value, given, mask), read)
        measured.gradients(block(key, value, given, mask), read, of=of)


@pytest.mark.parametrize("masked", [0, 1])
def test_plain_mode_equals_naive_reference(measured: Measured, masked: int) -> None:
    (x, _, query), mask, block = inputs(), masks()[masked], attend()
    alpha, read = naive_plain(x, query, mask=mask)
    measured.close(block.attention(x, query=query, mask=mask), alpha)
    measured.close(block(x, query=query, mask=mask), read)
    measured.gradients(block(x, query=query, mask=mask), read, of=(x, query))


def test_plain_mode_is_key_equals_value(measured: Measured) -> None:
    (x, _, query), block = inputs(), attend()
    measured.close(block(x, query=query), block(x, x, query), tolerance=0)
    measured.gradients(block(x, query=query), block(x, x, query), of=(x, query), tolerance=0)


def test_equals_torch_with_one_query(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    for mask in masks():
        allowed = None if mask is None else mask[:, None]
        public = F.scaled_dot_product_attention(query[:, None], key, value, attn_mask=allowed).squeeze(1)
        measured.close(block(key, value, query, mask), public)
        measured.gradients(block(key, value, query, mask), public, of=(key, value, query))


def test_columns_of_the_book_are_the_transpose(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    K, V, q = key.mT, value.mT, query[:, :, None]  # items as columns: (B, d, S)
    book = V @ (K.mT @ q / math.sqrt(6)).softmax(dim=1)  # (B, d_v, 1)
    measured.close(block(key, value, query)[:, :, None], book)


def test_soft_read_is_the_mean_of_random_hard_reads(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    alpha = block.attention(key, query=query)
    expectation = sum(alpha[:, n, None] * value[:, n] for n in range(5))  # every choice z = n, enumerated
    measured.close(block(key, value, query), expectation)
    torch.manual_seed(3)
    drawn = alpha.detach().multinomial(100_000, replacement=True)  # (B, draws)
    mean = torch.stack([value[b, drawn[b]].mean(dim=0) for b in range(3)])
    worst = (block(key, value, query) - mean).abs().max().item()
    measured.value("after 100,000 draws |Δ|", worst, above=0, below=0.02)


def test_long_queries_read_the_value_of_the_best_key(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    picked = naive_hard(block.attention(key, query=query), value)
    measured.close(block(key, value, 1e4 * query), picked)
    for length, distance in ((1, 2.0), (10, 1.0), (100, 0.2)):
        gap = (block(key, value, length * query) - picked).abs().max().item()
        measured.value(f"|Δ| at {length} q", gap, below=distance)


def test_query_of_zeros_reads_the_mean(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    measured.close(block(key, value, 0 * query), value.mean(dim=1))
    mask = torch.tensor([True, False, True, True, False]).expand(3, -1)
    measured.close(block(key, value, 0 * query, mask), value[:, mask[0]].mean(dim=1))


def test_read_is_linear_in_the_values_and_not_in_the_items_of_plain_mode(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    other = value.flip(1).exp()
    mixed = 2 * block(key, value, query) - 3 * block(key, other, query)
    measured.close(block(key, 2 * value - 3 * other, query), mixed)
    gap = (block(2 * key, query=query) - 2 * block(key, query=query)).abs().max().item()
    measured.value("plain mode, |att(2X) − 2 att(X)|", gap, above=0.1)


def test_values_do_not_change_the_address_and_moved_keys_neither(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    shift = torch.linspace(-2, 3, 6, dtype=torch.float64)
    measured.close(block(key + shift, value, query), block(key, value, query))
    offset = torch.linspace(-9, 5, 4, dtype=torch.float64)
    measured.close(block(key, value + offset, query), block(key, value, query) + offset)
    assert not torch.allclose(block(key + shift, query=query), block(key, query=query))


def test_weights_are_a_distribution_and_the_read_lies_between_the_values(measured: Measured) -> None:
    (key, value, query), block = inputs(S=40), attend()
    alpha = block.attention(key, query=query)
    measured.close(alpha.sum(dim=1), torch.ones(3, dtype=torch.float64))
    low, high = value.amin(dim=1), value.amax(dim=1)
    place = (block(key, value, 8 * query) - low) / (high - low)
    measured.value("lowest", place.min().item(), at_least=0)
    measured.value("highest", place.max().item(), at_most=1)


def test_order_of_the_items_does_not_matter(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    order = torch.tensor([3, 0, 4, 1, 2])
    measured.close(block(key[:, order], value[:, order], query), block(key, value, query))
    assert not torch.allclose(block(key[:, order], value, query), block(key, value, query))


def test_masked_items_might_as_well_be_absent(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    mask = torch.tensor([True, False, True, True, False]).expand(3, -1)
    measured.close(block(key, value, query, mask), block(key[:, mask[0]], value[:, mask[0]], query))
    other_key, other_value = (x.masked_fill(~mask[..., None], 1e6) for x in (key, value))
    measured.close(block(other_key, other_value, query, mask), block(key, value, query, mask))


def test_set_without_items_reads_zeros(measured: Measured) -> None:
    (key, value, query), block = inputs(), attend()
    y = block(key, value, query, masks()[1])
    measured.close(y[1], torch.zeros(4, dtype=torch.float64), tolerance=0)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), (key, value, query)))


def test_many_queries_of_the_book_are_many_blocks(measured: Measured) -> None:
    (key, value, _), blocks = inputs(), [KeyValueAttention(6).double() for _ in range(3)]
    queries = torch.stack([block.query for block in blocks]).expand(3, -1, -1)  # (B, M, d_k)
    _, read = naive_multi_query(key, value, queries)
    measured.close(torch.cat([block(key, value) for block in blocks], dim=1), read)


def test_only_the_learned_query_has_parameters(measured: Measured) -> None:
    measured.count(sum(p.numel() for p in KeyValueAttention(64).parameters()), 64)


def test_refuses_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="key_dim 0"):
        KeyValueAttention(0)
    block, (key, value) = example()
    with pytest.raises(ValueError, match=r"must be \(B, S\) = \(2, 5\)"):
        block(key, value, mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(TypeError, match="True = may be attended"):
        block(key, value, mask=torch.ones(2, 5))


def test_refuses_shapes_that_would_broadcast() -> None:
    block, (key, value) = example()
    for query in (key[:1, 0], key[0, 0], key[:, :2]):
        with pytest.raises(ValueError, match=r"must be \(B, d_k\) with B and d_k of key \(2, 5, 6\)"):
            block.attention(key, query=query)
    for other in (value[:, 1:], value[:1], value[0]):
        with pytest.raises(ValueError, match=r"must be \(B, S, d_v\) with B and S of key \(2, 5, 6\)"):
            block(key, other)
    with pytest.raises(ValueError, match=r"key \(5, 6\) must be \(B, S, d_k\) with d_k = 6"):
        block(key[0])
    with pytest.raises(ValueError, match=r"key \(2, 5, 3\) must be \(B, S, d_k\) with d_k = 6"):
        block(key[..., :3], value, key[:, 0, :3])


def test_scores_of_wide_keys_fit_into_half_precision() -> None:
    torch.manual_seed(0)
    key, query = 30 * torch.randn(2, 40, 2048), 30 * torch.randn(2, 2048)
    block = KeyValueAttention(2048)
    exact = block.attention(key.half().double(), query=query.half().double())
    torch.testing.assert_close(
        block.attention(key.half(), query=query.half()).double(), exact, rtol=0, atol=1e-2
    )
