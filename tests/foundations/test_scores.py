"""Proofs of the score functions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from snippets.foundations.scores import MODES, ScoredAttention, example
from tests.measure import Measured


def dot(q: Tensor, k: Tensor) -> Tensor:
    return sum((q[d] * k[d] for d in range(len(q))), q.new_zeros(()))


def general(q: Tensor, k: Tensor, W: Tensor) -> Tensor:
    """W (Dq,Dk)."""
    return sum((q[i] * W[i, j] * k[j] for i in range(len(q)) for j in range(len(k))), q.new_zeros(()))


def additive(q: Tensor, k: Tensor, v: Tensor, W_q: Tensor, W_k: Tensor, b: Tensor | None = None) -> Tensor:
    """v (Da,), W_q (Da,Dq), W_k (Da,Dk), b (Da,)."""
    inner = [dot(W_q[a], q) + dot(W_k[a], k) + (0 if b is None else b[a]) for a in range(len(v))]
    return sum((v[a] * torch.tanh(inner[a]) for a in range(len(v))), q.new_zeros(()))


def concat(q: Tensor, k: Tensor, v: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """v (Da,), W (Da,Dq+Dk), query columns first."""
    inner = [dot(W[a], torch.cat([q, k])) + (0 if b is None else b[a]) for a in range(len(v))]
    return sum((v[a] * torch.tanh(inner[a]) for a in range(len(v))), q.new_zeros(()))


PAIRWISE = {
    "dot": dot,
    "scaled": lambda q, k: dot(q, k) / math.sqrt(len(k)),
    "general": general,
    "additive": additive,
    "concat": concat,
}


def naive_scores(mode: str, query: Tensor, key: Tensor, **w: Tensor) -> Tensor:
    """query (B,T,Dq), key (B,S,Dk) -> e (B,T,S). location: W (Smax,Dq), b (Smax,), its first S rows used."""
    (B, T, _), S = query.shape, key.shape[1]
    e = []
    for b in range(B):
        for t in range(T):
            for s in range(S):
                if mode == "location":
                    e.append(dot(w["W"][s], query[b, t]) + (w["b"][s] if "b" in w else 0))
                else:
                    e.append(PAIRWISE[mode](query[b, t], key[b, s], **w))
    return torch.stack(e).reshape(B, T, S)


def naive_softmax(e: Tensor, mask: Tensor | None = None) -> Tensor:
    """e (B,T,S), mask broadcastable to it, True = may be attended; a fully masked row gives zeros."""
    may = torch.ones_like(e, dtype=torch.bool) if mask is None else mask.expand(e.shape)
    rows = []
    for x, ok in zip(e.reshape(-1, e.shape[-1]), may.reshape(-1, e.shape[-1]).tolist(), strict=True):
        top = max((float(v.detach()) for v, k in zip(x, ok, strict=True) if k), default=0.0)
        exps = [torch.exp(v - top) if k else e.new_zeros(()) for v, k in zip(x, ok, strict=True)]
        total = sum(exps, e.new_zeros(()))
        rows.append(torch.stack([v / total if k else v for v, k in zip(exps, ok, strict=True)]))
    return torch.stack(rows).reshape(e.shape)


def naive_read(a: Tensor, value: Tensor) -> Tensor:
    """a (B,T,S), value (B,S,Dv) -> (B,T,Dv)."""
    return torch.stack(
        [
            torch.stack([sum(w * v for w, v in zip(row, value[b], strict=True)) for row in a[b]])
            for b in range(len(a))
        ]
    )


def inputs(d_q: int = 6, d_k: int = 6, S: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of two samples, float64, T = 3 and d_v = 4."""
    torch.manual_seed(1)
    shapes = ((2, 3, d_q), (2, S, d_k), (2, S, 4))
    query, key, value = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return query, key, value


def attend(mode: str, d_q: int = 6, d_k: int = 6, d_a: int = 7, max_keys: int = 8) -> ScoredAttention:
    torch.manual_seed(2)
    return ScoredAttention(mode, d_q, d_k, d_a, max_keys).double()


def weights_of(block: ScoredAttention) -> dict[str, Tensor]:
    """Parameters under the names and in the shapes of the naive reference."""
    named = {name.removesuffix(".weight"): p for name, p in block.named_parameters()}
    if block.mode == "general":
        named["W"] = named["W"].T
    return named | ({"v": named["v"][0]} if "v" in named else {})


def mask() -> Tensor:
    """A mask (B, T, S) whose first row allows nothing."""
    allowed = torch.arange(30).view(2, 3, 5) % 7 > 2
    allowed[:, 0] = False
    return allowed


def same_function(measured: Measured, mode: str, d_k: int) -> None:
    """Hold scores, weights, output and all gradients against the naive reference."""
    block, (query, key, value) = attend(mode, 6, d_k), inputs(6, d_k)
    name = "scaled" if mode == "scaled_dot" else mode
    for allowed in (None, mask()):
        scores = naive_scores(name, query, key, **weights_of(block))
        weights = naive_softmax(scores, allowed)
        measured.close(block.scores(query, key), scores)
        measured.close(block.attention(query, key, mask=allowed), weights)
        y = block(query, key, value, allowed)
        measured.close(y, naive_read(weights, value))
        seen = (query, value) if mode == "location" else (query, key, value)
        measured.gradients(y, naive_read(weights, value), of=(*seen, *block.parameters()))


@pytest.mark.parametrize("mode", ["dot", "scaled_dot"])
def test_dot_products_equal_naive_reference(measured: Measured, mode: str) -> None:
    same_function(measured, mode, 6)


@pytest.mark.parametrize("d_k", [6, 4])
def test_general_equals_naive_reference(measured: Measured, d_k: int) -> None:
    same_function(measured, "general", d_k)


@pytest.mark.parametrize("mode", ["additive", "concat"])
@pytest.mark.parametrize("d_k", [6, 4])
def test_additive_and_concat_equal_naive_reference(measured: Measured, mode: str, d_k: int) -> None:
    same_function(measured, mode, d_k)


def test_location_equals_naive_reference(measured: Measured) -> None:
    same_function(measured, "location", 4)


def test_concat_is_additive(measured: Measured) -> None:
    (query, key, _), two, one = inputs(6, 4), attend("additive", 6, 4), attend("concat", 6, 4)
    one.load_state_dict(
        {"W.weight": torch.cat([two.W_q.weight, two.W_k.weight], dim=1), "v.weight": two.v.weight}
    )
    measured.close(one.scores(query, key), two.scores(query, key))
    measured.gradients(one.scores(query, key), two.scores(query, key), of=(query, key))


def test_general_with_identity_is_dot(measured: Measured) -> None:
    (query, key, _), block = inputs(), attend("general")
    nn.init.eye_(block.W.weight)
    measured.close(block.scores(query, key), attend("dot").scores(query, key))


def test_general_of_low_rank_is_a_dot_of_projections(measured: Measured) -> None:
    (query, key, _), block = inputs(6, 4), attend("general", 6, 4)
    A, B = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        block.W.weight.copy_(B.T @ A)
    measured.close(block.scores(query, key), attend("dot", 2, 2).scores(query @ A.T, key @ B.T))


def test_scaled_dot_is_dot_at_the_temperature_root_of_d(measured: Measured) -> None:
    query, key, value = inputs()
    cooled = attend("dot")(query / math.sqrt(6), key, value)
    measured.close(attend("scaled_dot")(query, key, value), cooled)
    measured.gradients(attend("scaled_dot")(query, key, value), cooled, of=(query, key, value))


def test_only_dot_products_treat_query_and_key_alike(measured: Measured) -> None:
    x, _, _ = inputs()
    for mode in ("dot", "scaled_dot"):
        scores = attend(mode).scores(x, x)
        measured.close(scores.mT, scores)
    for mode in ("general", "additive", "concat", "location"):
        scores = attend(mode).scores(x, x)
        gap = (scores.mT - scores).abs().max().item()
        measured.value(mode, gap, above=0.1)


def test_location_depends_on_the_query_only(measured: Measured) -> None:
    (query, key, value), block = inputs(), attend("location")
    measured.close(block.attention(query, 9 * key.flip(1)), block.attention(query, key), tolerance=0)
    expected = (query @ block.W.weight.T)[..., :5].softmax(dim=-1)  # of 8 places the first 5
    measured.close(block.attention(query, key), expected)
    assert torch.autograd.grad(block(query, key, value).sum(), key, allow_unused=True) == (None,)


def test_items_may_change_places_except_for_location(measured: Measured) -> None:
    (query, key, value), order = inputs(), torch.tensor([3, 0, 4, 1, 2])
    for mode in MODES:
        block = attend(mode)
        moved, y = block(query, key[:, order], value[:, order]), block(query, key, value)
        if mode == "location":
            gap = (moved - y).abs().max().item()
            measured.value("location |Δ|", gap, above=0.1)
        else:
            measured.close(moved, y)


def test_additive_scores_are_bounded(measured: Measured) -> None:
    (query, key, _), block = inputs(), attend("additive")
    bound = block.v.weight.abs().sum().item()
    largest = block.scores(1e6 * query, 1e6 * key).abs().max().item()
    measured.value("largest score / sum of |v|", largest / bound, at_most=1 + 1e-12)
    scores = attend("dot").scores(10 * query, key)
    measured.close(scores, 10 * attend("dot").scores(query, key))  # a dot product has no bound


def test_dot_products_equal_torch(measured: Measured) -> None:
    query, key, value = inputs()
    for mode, scale in (("dot", 1.0), ("scaled_dot", None)):
        for allowed in (None, mask()):
            public = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scale)
            y = attend(mode)(query, key, value, allowed)
            measured.close(y, public)
            measured.gradients(y, public, of=(query, key, value))


def test_general_equals_torch_bilinear(measured: Measured) -> None:
    (query, key, _), block = inputs(6, 4), attend("general", 6, 4)
    public = nn.Bilinear(4, 6, 1, bias=False).double()
    with torch.no_grad():
        public.weight.copy_(block.W.weight[None])
    pairs = key[:, None].expand(-1, 3, -1, -1), query[:, :, None].expand(-1, -1, 5, -1)
    expected = public(*(side.contiguous() for side in pairs)).squeeze(-1)
    measured.close(block.scores(query, key), expected)
    measured.gradients(block.scores(query, key), expected, of=(query, key))


@pytest.mark.parametrize("mode", MODES)
def test_weights_are_a_distribution_over_the_keys(measured: Measured, mode: str) -> None:
    query, key, _ = inputs()
    weights = attend(mode).attention(query, key)
    measured.close(weights.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    measured.value("smallest weight", weights.min().item(), above=0)


@pytest.mark.parametrize("mode", MODES)
def test_query_without_keys_reads_zeros(measured: Measured, mode: str) -> None:
    (query, key, value), block = inputs(), attend(mode)
    y = block(query, key, value, mask())
    measured.close(y[:, 0], torch.zeros(2, 4, dtype=torch.float64), tolerance=0)
    gradients = torch.autograd.grad(y.square().sum(), (query, value, *block.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_variance_grows_with_width_unless_scaled(measured: Measured) -> None:
    torch.manual_seed(0)
    for d in (16, 64, 256):
        query, key = torch.randn(8, 300, d), torch.randn(8, 300, d)
        found = {mode: ScoredAttention(mode, d, d).scores(query, key).var().item() for mode in MODES[:2]}
        measured.value(f"dot, d = {d}", found["dot"], equals=d, within=0.03 * d)
        measured.value("scaled", found["scaled_dot"], equals=1, within=0.03)


def test_fresh_general_has_a_third_of_the_variance_of_dot(measured: Measured) -> None:
    torch.manual_seed(0)
    ratios = []
    for _ in range(10):
        query, key, d = torch.randn(1, 200, 128), torch.randn(1, 200, 128), 128
        scores = [ScoredAttention(mode, d, d).scores(query, key) for mode in ("general", "dot")]
        ratios.append((scores[0].var() / scores[1].var()).item())
    measured.value("ratio at d = 128", sum(ratios) / 10, equals=1 / 3, within=0.01)


def test_gradient_of_the_weights_vanishes_for_large_scores(measured: Measured) -> None:
    torch.manual_seed(0)
    query, key = torch.ones(8000, 1, 1), torch.randn(8000, 32, 1)
    for deviation, expected in ((1, 0.24), (4, 0.29), (16, 0.112), (64, 0.031)):
        a = attend("dot", 1, 1).float().attention(deviation * query, key)[:, 0]
        norm = (a.diag_embed() - a[:, :, None] * a[:, None]).norm(dim=(1, 2)).mean().item()
        measured.value(f"deviation {deviation}", norm, equals=expected, within=0.08 * expected)


class LargestTensor(TorchDispatchMode):
    """Keeps the number of elements of the largest float32 tensor that any operation stores; views do not."""

    largest = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, Tensor)]
        if isinstance(result, Tensor) and (stored := result.untyped_storage())._cdata not in given:
            self.largest = max(self.largest, stored.nbytes() // 4)
        return result


def cost(mode: str, T: int, S: int, d: int) -> tuple[int, int, int]:
    """Parameters, multiply-adds of the scores of one sample, and the largest tensor, on the meta device."""
    block = ScoredAttention(mode, d, d, hidden_dim=d, max_keys=S).to("meta")
    query, key = torch.empty(1, T, d, device="meta"), torch.empty(1, S, d, device="meta")
    with FlopCounterMode(display=False) as counter:
        block.scores(query, key)
    with torch.no_grad(), LargestTensor() as tensors:
        block.scores(query, key)
    return sum(p.numel() for p in block.parameters()), counter.get_total_flops() // 2, tensors.largest


T, S, D = 64, 128, 256
COSTS = {  # parameters, multiply-adds, numbers in the largest tensor
    "dot": (0, T * S * D, T * D),  # the scaled query
    "scaled_dot": (0, T * S * D, T * D),
    "general": (D * D, T * D * D + T * S * D, T * D),
    "additive": (D * (2 * D + 1), (T + S) * D * D + T * S * D, T * S * D),
    "concat": (D * (2 * D + 1), T * S * D * (2 * D + 1), T * S * 2 * D),
    "location": (S * D, T * S * D, T * S),
}


def test_parameters_of_the_six_scores(measured: Measured) -> None:
    for mode, (parameters, _, _) in COSTS.items():
        measured.count(cost(mode, T, S, D)[0], parameters)


def test_multiply_adds_of_the_six_scores(measured: Measured) -> None:
    for mode, (_, macs, _) in COSTS.items():
        measured.count(cost(mode, T, S, D)[1], macs)


def test_largest_tensor_of_the_six_scores(measured: Measured) -> None:
    for mode, (_, _, largest) in COSTS.items():
        measured.count(cost(mode, T, S, D)[2], largest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosine", 4, 4), "mode 'cosine'"),
        (("dot", 4, 6), "query_dim 4 must be equal to key_dim 6"),
        (("scaled_dot", 4, 6), "query_dim 4 must be equal to key_dim 6"),
        (("general", 0, 6), "query_dim 0"),
        (("general", 4, 0), "key_dim 0"),
        (("additive", 4, 4, 0), "hidden_dim 0"),
        (("location", 4, 4, 1, 0), "max_keys 0"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoredAttention(*arguments)
    for wrong in (8.0, math.nan):
        with pytest.raises(TypeError):
            ScoredAttention("dot", 8, 8, max_keys=wrong)


def test_location_refuses_more_keys_than_it_has_places() -> None:
    query, key, value = inputs(S=9)
    with pytest.raises(ValueError, match="keys 9 must be at most max_keys 8"):
        attend("location")(query, key, value)


@pytest.mark.parametrize("shape", [(3, 5), (5,), (2, 3, 3), (1, 2, 3, 5)])
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    block, (query, key, value) = example()
    for call in (block, block.attention):
        with pytest.raises(ValueError, match="three dimensions that broadcast"):
            call(query, key, value, torch.ones(shape, dtype=torch.bool))


def test_refuses_padding_in_place_of_a_mask_of_pairs() -> None:
    """With as many samples as queries a padding mask (B, S) has the shape (T, S)."""
    block, (query, key, value) = example(B=3, T=3)
    real = torch.arange(5) < torch.tensor([[5], [4], [3]])
    with pytest.raises(ValueError, match=r"padding\[:, None\]"):
        block(query, key, value, real)
    assert not block.attention(query, key, mask=real[:, None])[2, :, 3:].any()


def test_refuses_masks_that_are_not_bool() -> None:
    block, tensors = example()
    with pytest.raises(TypeError, match="True = may be attended"):
        block(*tensors, mask=torch.ones(2, 3, 5))


@pytest.mark.parametrize("mode", MODES)
def test_refuses_keys_and_values_that_do_not_fit(mode: str) -> None:
    block, (query, key, value) = attend(mode), inputs()
    for asked, held in ((query[..., :5], key), (query, key[..., :5]), (query[..., :5], key[..., :5])):
        with pytest.raises(ValueError, match=r"with the same B, d_q = 6 and d_k = 6"):
            block.attention(asked, held)
    for other in (value[:, :4], value[:1], value[0]):
        with pytest.raises(ValueError, match="with B and S of key"):
            block(query, key, other)
    for asked, held in ((query[:1], key), (query, key[:1]), (query[0], key), (query, key[0])):
        with pytest.raises(ValueError, match=r"with the same B, d_q = 6 and d_k = 6"):
            block.attention(asked, held)


def test_dot_products_beyond_float16_are_right() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, n, 512) * 60 for n in (3, 5, 5))
    for mode in ("dot", "general"):
        block = ScoredAttention(mode, 512, 512)
        assert block.scores(query, key).abs().max() > 65504
        exact = block.double().attention(query.double(), key.double())
        for autocast, dtype in ((False, torch.float16), (True, torch.float32)):
            tensors = [x.to(dtype) for x in (query, key, value)]
            with torch.autocast("cpu", torch.float16, enabled=autocast):
                weights, y = block.to(dtype).attention(*tensors), block(*tensors)
            assert weights.dtype == dtype
            assert y.isfinite().all()
            assert (weights - exact).abs().max() < 1e-2
