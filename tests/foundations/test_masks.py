"""Proofs of the mask convention and its converters."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from snippets.foundations.masks import (
    MaskedAttention,
    causal,
    example,
    from_additive,
    from_huggingface,
    from_mha,
    from_mha_padding,
    padding,
    to_additive,
    to_huggingface,
    to_mha,
    to_mha_padding,
)
from tests.contract.walker import MODULES, load
from tests.measure import Measured

B, HEADS, T, S, D = 2, 3, 4, 6, 5
LENGTHS = torch.tensor([6, 4])


def naive_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Loops over samples, heads and queries; a sum runs over the allowed keys and no others."""
    (B, heads, T, d), S = query.shape, key.shape[2]
    weights, output = [], []
    for b in range(B):
        for h in range(heads):
            for t in range(T):
                keys = [s for s in range(S) if allowed is None or allowed.expand(B, heads, T, S)[b, h, t, s]]
                exps = {s: ((query[b, h, t] * key[b, h, s]).sum() / math.sqrt(d)).exp() for s in keys}
                zero = query.new_zeros(())
                row = [exps[s] / sum(exps.values()) if s in exps else zero for s in range(S)]
                weights.append(torch.stack(row))
                output.append(sum((row[s] * value[b, h, s] for s in keys), torch.zeros_like(value[b, h, 0])))
    return torch.stack(weights).view(B, heads, T, S), torch.stack(output).view(B, heads, T, -1)


def inputs(T: int = T, S: int = S) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    sizes = (T, S, S)
    query, key, value = (torch.randn(B, HEADS, n, D, dtype=torch.float64, requires_grad=True) for n in sizes)
    return query, key, value


def random_mask() -> Tensor:
    """A mask for each sample and head; the first query of each may attend to nothing."""
    mask = torch.rand(B, HEADS, T, S, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[:, :, 0] = False
    return mask


MASKS = {
    "none": None,
    "causal": causal(T, S),
    "padding": padding(LENGTHS, S),
    "causal and padding": causal(T, S) & padding(LENGTHS, S),
    "causal and padding on the left": causal(T, S) & padding(LENGTHS, S).flip(-1),
    "random": random_mask(),
}


def leak(weights: Tensor, mask: Tensor) -> float:
    """Share of the weight that lies on hidden keys."""
    return ((weights * ~mask).sum() / weights.sum()).item()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equals_naive_reference(measured: Measured, mask: Tensor | None) -> None:
    attend, tensors = MaskedAttention(), inputs()
    weights, y = naive_attention(*tensors, mask)
    measured.close(attend.attention(*tensors, mask), weights)
    measured.close(attend(*tensors, mask), y)
    measured.gradients(attend(*tensors, mask), y, of=tensors)
    measured.gradients(attend.attention(*tensors, mask), weights, of=tensors[:2])


def test_causal_and_padding_equal_their_definition(measured: Measured) -> None:
    for T, S in ((4, 4), (4, 6), (6, 4), (1, 5)):
        allowed = causal(T, S)[0, 0].tolist()
        expected = [[s - (S - 1) <= t - (T - 1) for s in range(S)] for t in range(T)]
        assert allowed == expected
        measured.value("allowed", sum(map(sum, allowed)), above=0)
    assert torch.equal(causal(4, 6)[0, 0], causal_lower_right(4, 6)._materialize().bool())  # torch's own
    real = padding(torch.tensor([5, 2, 0]), 5)
    assert real.shape == (3, 1, 1, 5)
    assert real.flatten(1).tolist() == [[s < length for s in range(5)] for length in (5, 2, 0)]


def test_every_round_trip_is_exact(measured: Measured) -> None:
    shape, real = (B, HEADS, T, S), padding(LENGTHS, S)
    trips = [(real, from_mha_padding(to_mha_padding(real))), (real, from_huggingface(to_huggingface(real)))]
    for mask in MASKS.values():
        if mask is not None:
            trips.append((mask.expand(shape), from_mha(to_mha(mask, shape), HEADS)))
    trips.append((causal(T, S), from_mha(~causal(T, S)[0, 0], HEADS)))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for hidden in (-math.inf, torch.finfo(dtype).min, -1e4, -100.0):
            trips.append((random_mask(), from_additive(to_additive(random_mask(), dtype, hidden))))
    for mask, back in trips:
        assert mask.shape == back.shape
        measured.value("entries changed", (mask != back).sum().item(), equals=0)
    theirs = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert torch.equal(to_huggingface(from_huggingface(theirs)), theirs)
    assert from_huggingface(theirs.bool()).equal(from_huggingface(theirs))


def mha() -> nn.MultiheadAttention:
    """Torch's module with identity matrices: what remains is its attention."""
    module = nn.MultiheadAttention(HEADS * D, HEADS, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(HEADS * D).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(HEADS * D))
    return module


def merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def test_one_mask_means_the_same_in_every_convention(measured: Measured) -> None:
    tensors, shape, real = inputs(), (B, HEADS, T, S), padding(LENGTHS, S)
    query, key, value = tensors
    mask = causal(T, S) & real
    y, minimum = MaskedAttention()(*tensors, mask), torch.finfo(torch.float64).min
    scores, merged = query @ key.mT / math.sqrt(D), [merge(x) for x in tensors]
    others = [
        F.scaled_dot_product_attention(*tensors, mask),
        F.scaled_dot_product_attention(*tensors, to_additive(mask, torch.float64)),
        F.scaled_dot_product_attention(*tensors, to_additive(mask, torch.float64, minimum)),
        (scores + to_additive(mask, torch.float64)).softmax(-1) @ value,
        (scores + to_additive(mask, torch.float64, minimum)).softmax(-1) @ value,
        MaskedAttention()(*tensors, causal(T, S) & from_huggingface(to_huggingface(real))),
    ]
    for other in others:
        measured.close(other, y)
        measured.gradients(other, y, of=tensors)
    theirs = [
        {"attn_mask": to_mha(mask, shape)},
        {"attn_mask": to_additive(mask.expand(shape).flatten(0, 1), torch.float64)},
        {"attn_mask": ~causal(T, S)[0, 0], "key_padding_mask": to_mha_padding(real)},
    ]
    for arguments in theirs:
        for need_weights in (True, False):
            other, _ = mha()(*merged, **arguments, need_weights=need_weights)
            measured.close(other, merge(y))
            measured.gradients(other, merge(y), of=tensors)


def test_query_without_keys_reads_zeros(measured: Measured) -> None:
    tensors, mask = inputs(), random_mask()
    y = MaskedAttention()(*tensors, mask)
    measured.close(y[:, :, 0], torch.zeros(B, HEADS, D, dtype=torch.float64), tolerance=0)
    weights = MaskedAttention().attention(*tensors, mask)
    measured.close(weights[:, :, 0], torch.zeros(B, HEADS, S, dtype=torch.float64), tolerance=0)
    (gradient,) = torch.autograd.grad(
        y.square().sum() + weights.square().sum(), tensors[:1], retain_graph=True
    )
    measured.close(gradient[:, :, 0], torch.zeros(B, HEADS, D, dtype=torch.float64), tolerance=0)
    rest = MaskedAttention()(tensors[0][:, :, 1:], *tensors[1:], mask[:, :, 1:])
    measured.gradients(y[:, :, 1:], rest, of=tensors)  # the empty rows add nothing to any gradient


def test_masking_a_key_equals_deleting_it(measured: Measured) -> None:
    (query, key, value), attend = inputs(), MaskedAttention()
    shown = torch.tensor([0, 2, 5])
    mask = torch.zeros(1, 1, T, S, dtype=torch.bool).index_fill(3, shown, True)
    y = attend(query, key, value, mask)
    deleted = attend(query, key[:, :, shown], value[:, :, shown])
    measured.close(y, deleted)
    measured.gradients(y, deleted, of=(query, key, value))


def moved(mask: Tensor) -> float:
    """Largest change of an output when every key and value changes that `causal` hides from its query."""
    (query, key, value), attend, worst = inputs(S, S), MaskedAttention(), 0.0
    y = attend(query, key, value, mask)
    for t in range(S - 1):
        later = (torch.arange(S) > t)[:, None]
        other = attend(query, torch.where(later, -3 * key, key), torch.where(later, value + 7, value), mask)
        worst = max(worst, (other - y)[:, :, : t + 1].abs().max().item())
    return worst


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    measured.value("change", moved(causal(S, S)), equals=0)


def test_inverted_mask_is_caught_by_changing_what_it_should_hide(measured: Measured) -> None:
    measured.value("change", moved(~causal(S, S)), above=1)


def test_inverted_mask_puts_all_weight_on_hidden_keys(measured: Measured) -> None:
    query, key, _ = inputs(S, S)
    attend, mask = MaskedAttention(), causal(S, S)
    first = attend.attention(query, key, mask=~mask)[:, :, 0, 1:].sum(-1).min().item()
    measured.value("token 0 on later tokens", first, equals=1, within=1e-12)
    measured.value("right", leak(attend.attention(query, key, mask=mask), mask), equals=0)
    measured.value("inverted", leak(attend.attention(query, key, mask=~mask), mask), equals=1)


def test_ones_and_zeros_as_floats_only_tilt_the_weights(measured: Measured) -> None:
    x = torch.zeros(1, 4, HEADS * D, dtype=torch.float64)  # equal scores
    real = torch.tensor([[1, 1, 0, 0]])
    shares = {}
    for name, given in (("float", real.double()), ("bool", real.bool())):
        _, weights = mha()(x, x, x, key_padding_mask=given)
        shares[name] = weights[0, :, 2:].sum(-1).mean().item()
    _, weights = mha()(x, x, x, key_padding_mask=to_mha_padding(from_huggingface(real)))
    shares["converted"] = weights[0, :, 2:].sum(-1).mean().item()
    measured.value("padding, float", shares["float"], equals=1 / (1 + math.e), within=1e-12)
    measured.value("padding, bool", shares["bool"], equals=1, within=1e-12)
    measured.value("padding, converted", shares["converted"], equals=0)


def test_ends_are_aligned_for_decoding(measured: Measured) -> None:
    (query, key, value), attend = inputs(S, S), MaskedAttention()
    whole = attend(query, key, value, causal(S, S))
    for new in (1, 3):
        steps = attend(query[:, :, -new:], key, value, causal(new, S))
        measured.close(steps, whole[:, :, -new:])
    step = F.scaled_dot_product_attention(query[:, :, -1:], key, value, is_causal=True)
    measured.close(step, value[:, :, :1])  # torch's flag aligns the beginnings: key 0 alone
    measured.value("torch's flag |Δ|", (step - whole[:, :, -1:]).abs().max().item(), above=1)


def test_masks_are_joined_by_and(measured: Measured) -> None:
    tensors, one, other = inputs(), causal(T, S), padding(LENGTHS, S)
    y = MaskedAttention()(*tensors, one & other)
    added = to_additive(one, torch.float64) + to_additive(other, torch.float64)
    measured.close(F.scaled_dot_product_attention(*tensors, added), y)
    assert torch.equal(from_additive(added), one & other)
    hidden = to_mha(one, (B, HEADS, T, S)) | to_mha(other, (B, HEADS, T, S))  # there, it is or
    assert torch.equal(hidden, to_mha(one & other, (B, HEADS, T, S)))


def test_mask_after_the_softmax_still_sees_the_hidden_keys(measured: Measured) -> None:
    (query, key, _), attend, mask = inputs(S, S), MaskedAttention().attention, causal(S, S)
    other = torch.cat([key[:, :, :-1], -3 * key[:, :, -1:]], 2)
    late, moved = attend(query, key) * mask, attend(query, other) * mask
    measured.value("smallest sum", late.sum(-1).min().item(), below=0.1)
    gap = (moved - late)[:, :, :-1].abs().max().item()
    measured.value("|Δ| when the last key changes", gap, above=0.1)
    early, moved = attend(query, key, mask=mask), attend(query, other, mask=mask)
    measured.close(early.sum(-1), torch.ones(B, HEADS, S, dtype=torch.float64))
    measured.close(moved[:, :, :-1], early[:, :, :-1], tolerance=0)


def empty_row(dtype: torch.dtype, *fills: float) -> Tensor:
    """Weights of a query all of whose keys are hidden by additive masks with these numbers."""
    scores = torch.linspace(-1, 2, S, dtype=dtype)
    for fill in fills:
        scores = scores + to_additive(torch.zeros(S, dtype=torch.bool), dtype, fill)
    return scores.softmax(0)


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def test_minus_infinity_in_a_whole_row_gives_nan(measured: Measured) -> None:
    measured.count(sum(int(empty_row(dtype, -math.inf).isnan().all()) for dtype in DTYPES), 4)
    assert torch.tensor(-1e9).half() == -math.inf  # not a float16 number
    x = torch.zeros(1, T, HEADS * D, dtype=torch.float64)
    hidden = torch.ones(T, T, dtype=torch.bool)
    assert mha()(x, x, x, attn_mask=hidden)[0].isnan().all()  # torch's module, with weights
    assert not mha()(x, x, x, attn_mask=hidden, need_weights=False)[0].any()  # and without: zeros
    x = torch.zeros(1, T, 8)
    usual = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():  # without gradients torch takes another way in evaluation mode, and NaN again
        assert usual.eval()(x, x, x, attn_mask=hidden, need_weights=False)[0].isnan().all()
        assert not usual.train()(x, x, x, attn_mask=hidden, need_weights=False)[0].any()


def test_finite_minimum_in_a_whole_row_reads_the_mean(measured: Measured) -> None:
    for dtype in DTYPES:
        weights = empty_row(dtype, torch.finfo(dtype).min).double()
        measured.close(weights, torch.full((S,), 1 / S, dtype=torch.float64), tolerance=1e-3)


def test_two_minima_overflow_in_every_dtype(measured: Measured) -> None:
    rows = [empty_row(dtype, *2 * (torch.finfo(dtype).min,)) for dtype in DTYPES]
    measured.count(sum(int(row.isnan().all()) for row in rows), 4)


def test_a_constant_that_is_not_large_hides_no_row(measured: Measured) -> None:
    unmasked = torch.linspace(-1, 2, S, dtype=torch.float64).softmax(0)
    for dtype, fill in ((torch.float32, -1e4), (torch.float64, -1e9)):
        measured.close(empty_row(dtype, fill).double(), unmasked, tolerance=1e-3)
        one_hidden = to_additive(torch.arange(S) > 0, dtype, fill).softmax(0)  # with other keys it does hide
        assert one_hidden[0] == 0


E = 8
MASKED: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "masks": lambda m, x, real: m.MaskedAttention()(x[:, None], x[:, None], x[:, None], real[:, None, None]),
    "structured_masks": lambda m, x, real: m.PatternAttention()(
        x[:, None], x[:, None], x[:, None], real[:, None, None]
    ),
    "query_key_value": lambda m, x, real: m.Attention(m.Additive(E, E, E))(x, x, mask=real[:, None]),
    "scores": lambda m, x, real: m.ScoredAttention("general", E, E)(x, x, x, real[:, None]),
    "additive": lambda m, x, real: m.AdditiveAttention(E, E, E)(torch.ones(len(x), E), x, real)[:, None],
    "blstm_attention": lambda m, x, real: m.BLSTMAttention(E, E)(x, real)[:, None],
    "key_value": lambda m, x, real: m.KeyValueAttention(E)(x, mask=real)[:, None],
    "luong_global": lambda m, x, real: m.GlobalAttention(E, E)(torch.ones(len(x), 1, E), x, real[:, None]),
    "cross_attention": lambda m, x, real: m.CrossAttention(E, E, 2)(torch.ones(len(x), 1, E), x, real),
    "gumbel": lambda m, x, real: m.GumbelAttention(E, E)(x, x, x, real[:, None]),
    "luong_local": lambda m, x, real: m.LocalAttention(E)(torch.ones(len(x), 1, E), x, real[:, None]),
    "self_attention": lambda m, x, real: m.SelfAttention(E)(x, real[:, None]),
    "online_softmax": lambda m, x, real: m.OnlineSoftmaxAttention()(
        x[:, None], x[:, None], x[:, None], real[:, None, None]
    ),
    "multi_head": lambda m, x, real: m.MultiHeadAttention(E, 2)(x, mask=real[:, None, None]),
    "structured": lambda m, x, real: m.StructuredSelfAttention(E, E, 2)(x, real),
    "transformer": lambda m, x, real: m.Transformer(E, 2, num_layers=1)(x, torch.ones(len(x), 1, E), real),
    "global_local": lambda m, x, real: m.GLTR(E)(x, real)[:, None],
    "linear": lambda m, x, real: m.LinearAttention(E, 2)(x, real),
    "random_features": lambda m, x, real: m.PerformerAttention(E, 2)(x, real),
    "decayed_linear": lambda m, x, real: m.DecayedLinearAttention(E, 2)(x, real),
    "state_space_duality": lambda m, x, real: m.StateSpaceDuality(E, 2)(x, real),
    "delta_rule": lambda m, x, real: m.DeltaRuleAttention(E, 2)(x, real),
    "gated_delta": lambda m, x, real: m.GatedDeltaAttention(E, 2)(x, real),
    "kimi_delta": lambda m, x, real: m.KimiDeltaAttention(E, 2)(x, real),
    "hopfield": lambda m, x, real: m.HopfieldRetrieval()(x, x, x, real[:, None]),
}
"""Slug -> what the module makes of x (B, S, E) with padding: (B, ..., width), of which token 0 is real."""


def test_not_finite_padding_reaches_the_output(measured: Measured) -> None:
    x, real = torch.randn(2, 9, E), torch.arange(9) < torch.tensor([[9], [6]])
    modules = {name.rpartition(".")[2]: load(name) for name in MODULES}

    def passing(cured: bool) -> list[str]:
        """Slugs of the modules whose output for real tokens is not finite."""
        found = []
        for slug, output in MASKED.items():
            for value in (math.nan, math.inf):
                given = x.masked_fill(~real[..., None], value)
                if cured:
                    given = given.masked_fill(~real[..., None], 0)
                y = output(modules[slug], given, real)
                if not y.movedim(-2, 0)[0].isfinite().all():
                    found.append(slug)
        return sorted(set(found))

    unharmed = set(MASKED) - set(passing(cured=False))
    measured.count(len(unharmed), 4)
    measured.count(len(passing(cured=True)), 0)
    assert unharmed == {"blstm_attention", "structured", "global_local", "state_space_duality"}
    hidden, poisoned = ~real[:, None, None], x.masked_fill(~real[..., None], math.nan)  # torch's do as well
    assert F.scaled_dot_product_attention(*3 * (poisoned[:, None],), ~hidden)[1, 0, 0].isnan().all()
    theirs = nn.MultiheadAttention(E, 2, batch_first=True)
    for need_weights in (True, False):
        y, _ = theirs(*3 * (poisoned,), key_padding_mask=~real, need_weights=need_weights)
        assert y[1, 0].isnan().all()
    assert (poisoned * real[..., None])[1, -1].isnan().all()  # multiplication does not help


def test_every_masked_module_is_among_them() -> None:
    masked = set()
    for name in MODULES:
        for kind in vars(load(name)).values():
            if inspect.isclass(kind) and kind.__module__ == name and issubclass(kind, nn.Module):
                names = inspect.signature(kind.forward).parameters
                masked |= {name.rpartition(".")[2] for given in names if given.split("_")[-1] == "mask"}
    assert masked == set(MASKED)


@pytest.mark.parametrize(
    "shape", [(T, S), (B, T, S), (S,), (3, 1, 1, S), (B, 2, T, S), (1, 1, T, S - 1), (1, B, 1, T, S)]
)
def test_refuses_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    attend, (query, key, value, _) = example()
    for call in (
        lambda m: attend(query, key, value, m),
        lambda m: attend.attention(query, key, value, m),
        lambda m: to_mha(m, (2, 3, 4, 6)),
    ):
        with pytest.raises(ValueError, match=r"four dimensions that broadcast to \(B, heads, T, S\) ="):
            call(torch.ones(shape, dtype=torch.bool))


def test_refuses_padding_in_place_of_a_mask_of_pairs() -> None:
    """With as many samples as queries a padding mask (B, S) has the shape (T, S)."""
    attend, (query, key, value, _) = example(B=4, T=4)
    real = padding(torch.tensor([6, 5, 4, 3]), 6)
    for call in (attend, attend.attention):
        with pytest.raises(ValueError, match=r"padding\[:, None, None\]"):
            call(query, key, value, real[:, 0, 0])
        assert torch.equal(call(query, key, value, real), call(query, key, value, real.expand(4, 3, 4, 6)))


def test_refuses_keys_and_values_that_do_not_fit() -> None:
    attend, (query, key, value, mask) = example()
    for other in (
        value[:, :, :5],
        torch.cat([value, value[:, :, :1]], 2),
        value[:, :, :1],
        value[:1],
        value[0],
    ):
        for given in (mask, None):
            with pytest.raises(ValueError, match="S of key"):
                attend(query, key, other, given)
    for asked, held in ((query[0], key[0]), (query[:1], key), (query, key[:, :1]), (query[..., 0, :], key)):
        for call in (attend, attend.attention):
            with pytest.raises(ValueError, match=r"must be \(B, heads, T, d\) and \(B, heads, S, d\)"):
                call(asked, held, held)


def test_second_derivatives_and_forward_mode_need_the_math_kernel() -> None:
    attend, tensors, mask = MaskedAttention(), inputs(), MASKS["causal and padding"]

    def curvature() -> Tensor:
        (slope,) = torch.autograd.grad(attend(*tensors, mask).square().sum(), tensors[0], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), tensors[0])[0]

    def slope_along() -> Tensor:
        return torch.func.jvp(lambda q: attend(q, *tensors[1:], mask), tensors[:1], tensors[:1])[1]

    for derivative in (curvature, slope_along):
        with pytest.raises(RuntimeError):
            derivative()
        with sdpa_kernel(SDPBackend.MATH):
            assert derivative().abs().max() > 0


def test_refuses_lengths_that_are_none() -> None:
    for lengths in (torch.tensor([3, 7]), torch.tensor([-1, 3])):
        with pytest.raises(ValueError, match=r"must be in \[0, 6\]"):
            padding(lengths, 6)
    for lengths in (torch.tensor([3.0]), torch.tensor([math.nan]), torch.tensor([True])):
        with pytest.raises(TypeError, match="must be integer"):
            padding(lengths, 6)
    for lengths in (torch.tensor([[1, 0]]), torch.tensor(3)):
        with pytest.raises(ValueError, match=r"must be \(B,\)"):
            padding(lengths, 6)
    assert padding(torch.tensor([0, 6]), 6).sum(-1).flatten().tolist() == [0, 6]


def test_refuses_masks_that_are_not_bool() -> None:
    attend, (query, key, value, mask) = example()
    for given in (mask.long(), mask.float()):
        for call in (
            lambda m=given: attend(query, key, value, m),
            lambda m=given: attend.attention(query, key, value, m),
            lambda m=given: to_mha(m, (2, 3, 4, 6)),
            lambda m=given: to_additive(m, torch.float32),
            lambda m=given: from_mha(m[0], 1),
            lambda m=given: from_mha_padding(m[0, 0]),
            lambda m=given: to_huggingface(m[:, :, :1]),
            lambda m=given: to_mha_padding(m[:, :, :1]),
        ):
            with pytest.raises(TypeError, match="mask must be bool"):
                call()


def test_refuses_what_a_converter_would_lose() -> None:
    for convert in (to_huggingface, to_mha_padding):
        with pytest.raises(ValueError, match=r"must be \(B, 1, 1, S\)"):
            convert(causal(4, 4))
        with pytest.raises(ValueError, match=r"must be \(B, 1, 1, S\)"):
            convert(causal(4, 4)[0, 0])


def test_refuses_masks_of_another_convention() -> None:
    for given in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, -0.5, -math.inf]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="must hold only 0"):
            from_additive(given)
    for given in (torch.tensor([0, 0]), torch.tensor([False, False])):  # ones and zeros that hide all
        with pytest.raises(TypeError, match="must be floating-point"):
            from_additive(given)
    for given in (
        to_additive(padding(LENGTHS, S), torch.float32)[:, 0, 0],
        torch.zeros(2, 6),
        torch.ones(2, 6),
    ):
        with pytest.raises(TypeError, match="see from_additive"):
            from_huggingface(given)
    for given in (torch.tensor([[0, -10000]]), torch.tensor([[1, 2]])):
        with pytest.raises(ValueError, match="must hold only 1"):
            from_huggingface(given)
    with pytest.raises(ValueError, match=r"must be \(B, S\)"):
        from_huggingface(torch.tensor([1, 0]))
    for hidden in (0.0, 1.0, -99.0, math.nan):
        with pytest.raises(ValueError, match="must be at most -100"):
            to_additive(causal(4, 4), torch.float32, hidden)
    for shape in ((B * HEADS + 1, T, S), (B, HEADS, T, S), (S,)):
        with pytest.raises(ValueError, match="attn_mask"):
            from_mha(torch.ones(shape, dtype=torch.bool), HEADS)
    for shape in ((S,), (B, 1, S)):
        with pytest.raises(ValueError, match="key_padding_mask"):
            from_mha_padding(torch.ones(shape, dtype=torch.bool))


def test_refuses_an_additive_mask_that_is_not_float() -> None:
    with pytest.raises(TypeError, match=r"must be floating-point, not torch\.bool"):
        to_additive(padding(LENGTHS, S), torch.bool)


def test_names_the_convention_of_the_other_side() -> None:
    """In torch's module True hides; who is told otherwise turns the mask over."""
    for convert in (lambda: from_mha(torch.zeros(4, 4), 2), lambda: from_mha_padding(torch.zeros(4, 4))):
        with pytest.raises(TypeError, match=r"mask must be bool, True = hidden, not torch\.float32"):
            convert()
