"""Proofs of position biases."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from transformers import T5Config, Wav2Vec2BertConfig, XLNetConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from snippets.foundations.position_bias import (
    ALiBi,
    BiasedAttention,
    ShawKeys,
    ShawValues,
    T5Bias,
    TransformerXLBias,
    bucket,
    distances,
    example,
    slopes,
)
from tests.measure import Measured

HEADS, D, D_V, T, S = 3, 4, 5, 4, 6


def naive_read(scores: list[Tensor], values: list[Tensor]) -> Tensor:
    """Return the softmax mean of at least one value."""
    e = [torch.exp(s) for s in scores]
    return sum(a * v for a, v in zip(e, values, strict=True)) / sum(e)


def naive_biased(
    q: Tensor, k: Tensor, v: Tensor, bias: Callable[[int, int, int, int], Tensor], scale: float, causal: bool
) -> Tensor:
    """Return (B, H, T, d_v) with bias(b, h, i, j) added to the scaled score of query i and key j."""
    (batch, heads, length, _), offset = q.shape, k.shape[2] - q.shape[2]
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                seen = range(offset + i + 1) if causal else range(k.shape[2])
                scores = [(q[b, h, i] * k[b, h, j]).sum() * scale + bias(b, h, i, j) for j in seen]
                out.append(naive_read(scores, [v[b, h, j] for j in seen]))
    return torch.stack(out).reshape(batch, heads, length, v.shape[-1])


def naive_shaw(
    q: Tensor, k: Tensor, v: Tensor, rows_k: Tensor, rows_v: Tensor, left: int, right: int, causal: bool
) -> Tensor:
    """Return softmax(q_i (k_j + a^K_r) / sqrt(d)) (v_j + a^V_r), r = j - i clipped."""
    (batch, heads, length, d), offset = q.shape, k.shape[2] - q.shape[2]
    out = []
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                scores, values = [], []
                for j in range(offset + i + 1) if causal else range(k.shape[2]):
                    r = left + min(max(j - offset - i, -left), right)
                    scores.append((q[b, h, i] * (k[b, h, j] + rows_k[r])).sum() * d**-0.5)
                    values.append(v[b, h, j] + rows_v[r])
                out.append(naive_read(scores, values))
    return torch.stack(out).reshape(batch, heads, length, v.shape[-1])


def naive_steps(n: int, limit: int, exact: int, longest: int) -> int:
    """Return floor(limit ln(n / exact) / ln(longest / exact)) in exact integers, at most limit."""
    m = 0
    while m < limit and n**limit * exact ** (m + 1) >= longest ** (m + 1) * exact**limit:
        m += 1
    return m


def naive_bucket(r: int, causal: bool, buckets: int = 32, longest: int = 128) -> int:
    """Return T5's bucket of r = j - i, later keys using the second half of the table."""
    side = buckets if causal else buckets // 2
    start = 0 if causal or r <= 0 else side
    n = max(-r, 0) if causal else abs(r)
    exact = side // 2
    if n < exact:
        return start + n
    return start + min(exact + naive_steps(n, side - exact, exact, longest), side - 1)


def naive_sinusoid(distance: int, width: int) -> Tensor:
    """Return s(distance), all sines, then all cosines, at 10000^(-2 n / width)."""
    a = [distance * 10000.0 ** (-2 * n / width) for n in range(width // 2)]
    return torch.tensor([math.sin(n) for n in a] + [math.cos(n) for n in a], dtype=torch.float64)


def naive_slopes(heads: int) -> list[float]:
    """Return ALiBi's slopes, every second one of 2 P heads after those of P <= H."""
    p = 1
    while 2 * p <= heads:
        p *= 2
    first = [2.0 ** (-8 * h / p) for h in range(1, p + 1)]
    return first + [2.0 ** (-8 * h / (2 * p)) for h in range(1, 2 * (heads - p), 2)]


def tensors(length: int = T, keys: int = S) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    shapes = (2, HEADS, length, D), (2, HEADS, keys, D), (2, HEADS, keys, D_V)
    query, key, value = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return query, key, value


def large(attend: BiasedAttention) -> BiasedAttention:
    """The same with parameters of the size of the scores."""
    attend = attend.double().eval()
    torch.manual_seed(2)
    for parameter in attend.parameters():
        nn.init.normal_(parameter)
    return attend


def t5(causal: bool) -> BiasedAttention:
    return large(BiasedAttention(T5Bias(HEADS, causal, buckets=8, longest=16), causal, scale=1.0))


def shaw(causal: bool) -> BiasedAttention:
    return large(BiasedAttention(ShawKeys(D, 2, 1), causal, values=ShawValues(D_V, 2, 1)))


def alibi(causal: bool) -> BiasedAttention:
    return BiasedAttention(ALiBi(HEADS), causal)


def xl() -> BiasedAttention:
    return large(BiasedAttention(TransformerXLBias(HEADS, D), causal=True))


def held(measured: Measured, attend: BiasedAttention, expected: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Hold output and all gradients against the reference."""
    y = attend(*inputs)
    measured.close(y, expected)
    measured.gradients(y, expected, of=(*inputs, *attend.parameters()))


each_direction = pytest.mark.parametrize("causal", [True, False])


@each_direction
def test_shaw_equals_naive_reference(measured: Measured, causal: bool) -> None:
    attend, inputs = shaw(causal), tensors()
    keys, values = attend.bias.rows.weight, attend.values.rows.weight.T
    held(measured, attend, naive_shaw(*inputs, keys, values, 2, 1, causal), inputs)


@each_direction
def test_t5_equals_naive_reference(measured: Measured, causal: bool) -> None:
    attend, inputs = t5(causal), tensors()

    def bias(b: int, h: int, i: int, j: int) -> Tensor:
        row: Tensor = attend.bias.table.weight[naive_bucket(j - (S - T + i), causal, 8, 16)]
        return row[h]

    held(measured, attend, naive_biased(*inputs, bias, 1.0, causal), inputs)


def test_transformer_xl_equals_naive_reference(measured: Measured) -> None:
    attend, inputs = xl(), tensors()
    part: Any = attend.bias
    query, key, _ = inputs

    def bias(b: int, h: int, i: int, j: int) -> Tensor:
        back = S - T + i - j
        place = (part.r_proj.weight @ naive_sinusoid(back, HEADS * D)).unflatten(0, (HEADS, D))[h]
        content = (part.u[h, 0] * key[b, h, j]).sum()
        return (content + ((query[b, h, i] + part.v[h, 0]) * place).sum()) * D**-0.5

    held(measured, attend, naive_biased(*inputs, bias, D**-0.5, causal=True), inputs)


@each_direction
def test_alibi_equals_naive_reference(measured: Measured, causal: bool) -> None:
    attend, inputs = alibi(causal), tensors()

    def bias(b: int, h: int, i: int, j: int) -> Tensor:
        return torch.tensor(-naive_slopes(HEADS)[h] * abs(S - T + i - j), dtype=torch.float64)

    held(measured, attend, naive_biased(*inputs, bias, D**-0.5, causal), inputs)


EVERY = {
    "shaw": partial(shaw, causal=True),
    "t5": partial(t5, causal=True),
    "transformer_xl": xl,
    "alibi": partial(alibi, causal=True),
}
each_form = pytest.mark.parametrize("form", EVERY)


@each_form
def test_fused_forward_equals_weights_times_values(measured: Measured, form: str) -> None:
    attend, inputs = EVERY[form](), tensors()
    weights = attend.attention(*inputs)
    explicit = weights @ inputs[2]
    if attend.values is not None:
        explicit = explicit + attend.values(weights)
    measured.close(attend(*inputs), explicit)
    measured.gradients(attend(*inputs), explicit, of=(*inputs, *attend.parameters()))


@each_form
def test_the_last_queries_read_the_same(measured: Measured, form: str) -> None:
    """As a decoder asks: two new queries of six tokens get what a full pass gives them."""
    attend, inputs = EVERY[form](), tensors(S, S)
    query, key, value = inputs
    measured.close(attend(query[:, :, -2:], key, value), attend(*inputs)[:, :, -2:])


@each_form
def test_a_shift_of_all_tokens_changes_nothing(measured: Measured, form: str) -> None:
    """Two tokens less in front: the biases among the others are the same."""
    attend, (query, key, _) = EVERY[form](), tensors(S, S)
    bias = attend.bias(query, key)
    moved = attend.bias(query[:, :, 2:], key[:, :, 2:])
    earlier = distances(S - 2, S - 2) <= 0
    measured.close(moved[..., earlier], bias[..., 2:, 2:][..., earlier])


@pytest.mark.parametrize("form", ["shaw", "t5", "transformer_xl"])
def test_zero_tables_are_plain_attention(measured: Measured, form: str) -> None:
    attend, inputs = EVERY[form](), tensors(S, S)
    for parameter in attend.parameters():
        nn.init.zeros_(parameter)
    plain = nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, scale=attend.scale)
    measured.close(attend(*inputs), plain)


@each_direction
def test_equals_t5(measured: Measured, causal: bool) -> None:
    torch.manual_seed(0)
    config = T5Config(
        d_model=HEADS * D, d_kv=D, num_heads=HEADS, is_decoder=causal, attn_implementation="sdpa"
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0, is_causal=causal)
    theirs = theirs.double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    attend = BiasedAttention(T5Bias(HEADS, causal), causal, scale=1.0).double()
    attend.bias.table.load_state_dict(theirs.relative_attention_bias.state_dict())
    x = torch.randn(2, 40, HEADS * D, dtype=torch.float64, requires_grad=True)
    heads = (linear(x).unflatten(2, (HEADS, D)).transpose(1, 2) for linear in (theirs.q, theirs.k, theirs.v))
    ours = theirs.o(attend(*heads).transpose(1, 2).flatten(2))
    hidden = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    if causal:
        hidden = hidden.masked_fill(distances(40, 40) > 0, -torch.inf)
    y = theirs(x, mask=hidden)[0]
    measured.close(ours, y)
    measured.gradients(ours, y, of=(x,))


@each_direction
def test_buckets_equal_those_of_t5(measured: Measured, causal: bool) -> None:
    """And those in exact integers, for distances to 2,000."""
    distance = torch.arange(-2000, 2001)
    ours = bucket(distance, causal)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional=not causal)
    measured.count(int((ours != theirs).sum()), 0)
    exact = torch.tensor([naive_bucket(r, causal) for r in distance.tolist()])
    measured.count(int((ours != exact).sum()), 0)


def test_one_bucket_is_never_used_both_ways(measured: Measured) -> None:
    used = bucket(torch.arange(-5000, 5001), causal=False).unique().tolist()
    measured.count(len(used), 31)
    assert sorted(set(range(32)) - set(used)) == [16]
    attend, inputs = example()
    attend(*inputs).sum().backward()
    measured.value("its gradient", attend.bias.table.weight.grad[16].abs().max().item(), equals=0)
    measured.count(len(bucket(torch.arange(-5000, 1), causal=True).unique()), 32)


def test_far_distances_are_one(measured: Measured) -> None:
    """First distance of the last bucket, beyond which T5 cannot tell distances apart."""
    for causal, first in ((True, 113), (False, 91)):
        rows = bucket(-torch.arange(5000), causal)
        measured.count(int((rows == rows[-1]).nonzero()[0]), first)


def test_shaw_equals_wav2vec2_bert(measured: Measured) -> None:
    """Keys alone, five back and two ahead."""
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=HEADS * D,
        num_attention_heads=HEADS,
        position_embeddings_type="relative_key",
        left_max_position_embeddings=5,
        right_max_position_embeddings=2,
        attention_dropout=0.0,
    )
    theirs = Wav2Vec2BertSelfAttention(config).double().eval()
    attend = BiasedAttention(ShawKeys(D, 5, 2)).double()
    attend.bias.rows.load_state_dict(theirs.distance_embedding.state_dict())
    x = torch.randn(2, 12, HEADS * D, dtype=torch.float64, requires_grad=True)
    linears = theirs.linear_q, theirs.linear_k, theirs.linear_v
    heads = (linear(x).unflatten(2, (HEADS, D)).transpose(1, 2) for linear in linears)
    ours = theirs.linear_out(attend(*heads).transpose(1, 2).flatten(2))
    y = theirs(x)[0]
    measured.close(ours, y)
    measured.gradients(ours, y, of=(x,))


def shifted(by_place: Tensor) -> Tensor:
    """The paper's trick: columns from the farthest distance to none; a column of zeros, another view."""
    B, heads, T, S = by_place.shape
    padded = torch.cat([by_place.new_zeros(B, heads, T, 1), by_place], dim=-1)
    return padded.view(B, heads, S + 1, T)[:, :, 1:].reshape(B, heads, T, S)


def test_the_shift_of_transformer_xl_is_a_gather(measured: Measured) -> None:
    """Where the distance is not negative. Elsewhere the shift leaves numbers of the next row."""
    torch.manual_seed(0)
    by_distance = torch.randn(2, HEADS, T, S, dtype=torch.float64)
    back = -distances(T, S)
    found = by_distance.gather(-1, back.clamp(min=0).expand(by_distance.shape))
    trick = shifted(by_distance.flip(-1))
    measured.close(trick[..., back >= 0], found[..., back >= 0], tolerance=0)
    left = trick[..., back < 0]
    measured.value("share of later keys with a number", (left != 0).double().mean().item(), above=0.4)


def test_transformer_xl_equals_xlnet(measured: Measured) -> None:
    """Its core, causal, with two tokens of memory."""
    attend, (query, key, value) = xl(), tensors()
    part: Any = attend.bias
    theirs = XLNetRelativeAttention(XLNetConfig(d_model=HEADS * D, n_head=HEADS, dropout=0.0)).double().eval()
    with torch.no_grad():
        theirs.r_w_bias.copy_(part.u[:, 0])
        theirs.r_r_bias.copy_(part.v[:, 0])
    value = value[..., :D]
    place = torch.stack([naive_sinusoid(n, HEADS * D) for n in range(S, -T, -1)])  # far to near, then ahead
    places = part.r_proj(place).unflatten(1, (HEADS, D))[:, None].expand(-1, 2, -1, -1)
    hidden = (distances(T, S) > 0).double()[..., None, None].expand(-1, -1, 2, HEADS)
    heads = (x.permute(2, 0, 1, 3) for x in (query, key, value))
    y = theirs.rel_attn_core(*heads, places, attn_mask=hidden).permute(1, 2, 0, 3)
    measured.close(attend(query, key, value), y)
    measured.gradients(attend(query, key, value), y, of=(query, key, part.r_proj.weight))


@pytest.mark.parametrize("heads", [6, 8, 12, 20, 40, 71])
def test_slopes_equal_bloom_and_mpt(measured: Measured, heads: int) -> None:
    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    mpt = -build_mpt_alibi_tensor(heads, 2)[:, 0, 0]
    for theirs in (bloom, mpt):
        measured.close(slopes(heads), theirs, tolerance=1e-6)


def test_one_series_for_twelve_heads_has_other_slopes(measured: Measured) -> None:
    series = 2 ** (-8 * torch.arange(12, 0, -1) / 12)  # small to large
    measured.value("largest ratio", (slopes(12).sort().values / series).max().item(), above=2.5)


def test_alibi_is_one_more_feature_if_causal(measured: Measured) -> None:
    """m j in place of -m (i - j): a constant for each query, which a softmax drops, if causal."""
    query, key, value = tensors(S, S)
    slope = slopes(HEADS).double()[:, None, None]
    place = (slope * torch.arange(S)[:, None] * D**0.5).expand(2, HEADS, S, 1)
    more = torch.cat([query, torch.ones_like(place)], -1), torch.cat([key, place], -1)
    for causal in (True, False):
        y = nn.functional.scaled_dot_product_attention(*more, value, is_causal=causal, scale=D**-0.5)
        expected = alibi(causal)(query, key, value)
        if causal:
            measured.close(y, expected)
        else:
            measured.value("both ways, max |Δ|", (y - expected).abs().max().item(), above=0.3)


def test_alibi_equals_flex_attention(measured: Measured) -> None:
    query, key, _ = (x.detach() for x in tensors(S, S))
    slope = slopes(HEADS).double()

    def score(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return torch.where(j <= i, score - slope[h] * (i - j), -torch.inf)

    y = flex_attention(query, key, key, score_mod=score)
    measured.close(alibi(causal=True)(query, key, key), y)


def test_distance_that_leaves_a_thousandth(measured: Measured) -> None:
    """At which exp(-m distance) falls below 0.001, in each of eight heads."""
    for slope, expected in zip(slopes(8).tolist(), (14, 28, 56, 111, 222, 443, 885, 1769), strict=True):
        measured.count(math.ceil(math.log(1000) / slope), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T5Bias(0), "num_heads 0 must be at least 1"),
        (lambda: T5Bias(4, buckets=3), "buckets 3 must be at least 4"),
        (lambda: T5Bias(4, longest=20), "longest 20 must be at least buckets 32"),
        (lambda: ShawKeys(8, -1, 2), "left -1 and right 2 must be at least 0"),
        (lambda: TransformerXLBias(4, 7), "head_dim 7 must be even and at least 2"),
        (lambda: ALiBi(0), "num_heads 0 must be at least 1"),
        (lambda: BiasedAttention(ALiBi(4), scale=math.inf), "scale inf must be finite"),
    ],
)
def test_refuses_impossible_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_values_of_another_width() -> None:
    _, inputs = example(d_v=5)
    with pytest.raises(ValueError, match="must have the shape of read"):
        BiasedAttention(ShawKeys(8, 2, 2), values=ShawValues(1, 2, 2))(*inputs)


def test_refuses_a_bias_of_other_heads() -> None:
    _, inputs = example()
    with pytest.raises(ValueError, match=r"bias \(3, 6, 10\) must have at most 4 dimensions"):
        BiasedAttention(T5Bias(3))(*inputs)
