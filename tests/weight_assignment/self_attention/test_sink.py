"""Proofs of attention sinks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GptOssConfig, GraniteSWAConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention
from transformers.models.granite_swa.modeling_granite_swa import GraniteSWAAttention

from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from snippets.weight_assignment.self_attention.sink import MODES, SinkAttention, SinkCache, example
from tests.measure import Measured

SIZES: dict[str, Any] = {
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "num_hidden_layers": 1,
    "layer_types": ["full_attention"],
    "attn_implementation": "eager",
}
each_mode = pytest.mark.parametrize("mode", MODES)
each_window = pytest.mark.parametrize(("first", "window"), [(0, None), (0, 3), (2, 3), (1, 1), (4, 20)])


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return x W^T + b."""
    return torch.einsum("...i,oi->...o", x, w) + b


def naive_keys(i: int, first: int, window: int | None) -> list[int]:
    """Return the keys that the query at position i may read: the first ones and the last ones up to i."""
    return [j for j in range(i + 1) if window is None or j < first or j > i - window]


def naive_weights(scores: list[Tensor], sink: Tensor | None) -> list[Tensor]:
    """Return exp(s_j) / (exp(sink) + sum exp(s_j)), no sink meaning a plain softmax."""
    e = [torch.exp(s) for s in scores]
    total = sum(e) if sink is None else torch.exp(sink) + sum(e)
    return [a / total for a in e]


def naive(layer: SinkAttention, x: Tensor, first: int, window: int | None) -> Tensor:
    """Return (B, T, E), one query of one head at a time."""
    heads, (*into, o) = layer.num_heads, projections(layer)
    q, k, v = (linear(x, w.weight, w.bias).unflatten(-1, (heads, -1)).transpose(1, 2) for w in into)
    out = []
    for b in range(x.shape[0]):
        for h in range(heads):
            for i in range(x.shape[1]):
                seen = naive_keys(i, first, window)
                scores = [(q[b, h, i] * k[b, h, j]).sum() * q.shape[-1] ** -0.5 for j in seen]
                a = naive_weights(scores, None if layer.mode == "tokens" else layer.sink[h])
                out.append(sum(w * v[b, h, j] for w, j in zip(a, seen, strict=True)))
    read = torch.stack(out).reshape(v.shape)
    return linear(read.transpose(1, 2).flatten(2), o.weight, o.bias)


def projections(layer: SinkAttention) -> tuple[nn.Linear, ...]:
    """Of queries, keys, values and output."""
    return layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj


def small(
    mode: str = "learned", first: int = 0, window: int | None = None, T: int = 7
) -> tuple[SinkAttention, Tensor]:
    """A layer with large random weights and logits, and tokens."""
    torch.manual_seed(1)
    layer = SinkAttention(12, 3, mode, first, window).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, 12, dtype=torch.float64, requires_grad=True)


def plain(layer: SinkAttention) -> MultiHeadAttention:
    """The layer of multi-head attention with the same weights."""
    found = MultiHeadAttention(12, 3).double().eval()
    found.load_state_dict({name: w for name, w in layer.state_dict().items() if name != "sink"})
    return found


def masked(T: int) -> Tensor:
    """What is added to the scores by the codes that add a mask: (1, 1, T, T)."""
    return torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)[None, None]


def log_sum_exp(layer: SinkAttention, x: Tensor) -> Tensor:
    """Of the scores of each query: (B, heads, T)."""
    q, k = (linear(x).unflatten(2, (3, 4)).transpose(1, 2) for linear in (layer.q_proj, layer.k_proj))
    return torch.logsumexp(q @ k.mT / 2 + masked(7), dim=-1)


@each_mode
@each_window
def test_equals_naive_reference(measured: Measured, mode: str, first: int, window: int | None) -> None:
    layer, x = small(mode, first, window)
    expected = naive(layer, x, first, window)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_mode
@each_window
def test_fused_forward_equals_weights_times_values(
    measured: Measured, mode: str, first: int, window: int | None
) -> None:
    layer, x = small(mode, first, window)
    values = layer.v_proj(x).unflatten(2, (3, 4))
    read = torch.einsum("bhts,bshd->bthd", layer.attention(x), values).flatten(2)
    measured.close(layer(x), layer.out_proj(read))


def test_sink_scales_the_plain_output_by_a_sigmoid(measured: Measured) -> None:
    layer, x = small()
    factor = torch.sigmoid(log_sum_exp(layer, x) - layer.sink[:, None])  # (B, heads, T)
    weights = plain(layer).attention(x, is_causal=True)
    measured.close(layer.attention(x), weights * factor[..., None])
    measured.close(layer.attention(x).sum(dim=-1), factor)


def unrotated(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Cosine 1 and sine 0 for each token: no positions."""
    return x.new_ones(*x.shape[:2], d), x.new_zeros(*x.shape[:2], d)


def theirs(kind: Any, config: Any, layer: SinkAttention) -> Any:
    """A layer of transformers with the same weights."""
    found = kind(config, layer_idx=0).double().eval()
    names = {"out_proj": "o_proj", "sink": "sinks"}
    state = {
        ".".join(names.get(part, part) for part in name.split(".")): w
        for name, w in layer.state_dict().items()
    }
    found.load_state_dict(state)
    return found


def test_equals_gpt_oss(measured: Measured) -> None:
    layer, x = small()
    config = GptOssConfig(**SIZES)
    y, weights = theirs(GptOssAttention, config, layer)(x, unrotated(x, 2), masked(7))
    measured.close(layer.attention(x), weights)
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_equals_granite_which_rescales_by_the_log_sum_exp(measured: Measured) -> None:
    """It computes softmax and factor in float32."""
    layer, x = small()
    config = GraniteSWAConfig(**SIZES, attention_multiplier=0.5, attention_bias=True)
    y, weights = theirs(GraniteSWAAttention, config, layer)(x, None, masked(7))
    measured.close(layer(x), y, tolerance=1e-5)
    measured.close(weights.sum(dim=-1), torch.ones(2, 3, 7, dtype=torch.float64), tolerance=1e-5)


def test_plus_one_equals_add_zero_attn_of_torch(measured: Measured) -> None:
    layer, x = small("plus_one")
    torchs = nn.MultiheadAttention(12, 3, add_zero_attn=True, batch_first=True).double().eval()
    stacked = projections(layer)[:3]
    state = {
        "in_proj_weight": torch.cat([linear.weight for linear in stacked]),
        "in_proj_bias": torch.cat([linear.bias for linear in stacked]),
        "out_proj.weight": layer.out_proj.weight,
        "out_proj.bias": layer.out_proj.bias,
    }
    torchs.load_state_dict(state)
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    y, weights = torchs(x, x, x, attn_mask=later, average_attn_weights=False)
    measured.close(layer.attention(x), weights[..., :-1])  # its zero key is the last
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_far_below_the_scores_a_sink_changes_nothing(measured: Measured) -> None:
    layer, x = small()
    nn.init.constant_(layer.sink, -60)
    measured.close(layer(x), plain(layer)(x, is_causal=True))


def test_far_above_the_scores_a_sink_takes_all(measured: Measured) -> None:
    layer, x = small()
    nn.init.constant_(layer.sink, 60)
    measured.value("largest weight", layer.attention(x).max().item(), below=1e-10)
    measured.close(layer(x), layer.out_proj.bias.expand(2, 7, 12))


def test_a_bias_of_the_keys_matters_only_with_a_sink(measured: Measured) -> None:
    """It adds the same number to all scores of a query."""
    for mode in MODES:
        layer, x = small(mode)
        before = layer(x)
        nn.init.normal_(layer.k_proj.bias)
        change = (layer(x) - before).abs().max().item()
        if mode == "tokens":
            measured.value("change without a sink", change, at_most=1e-10)
        else:
            measured.value("change with one", change, above=0.1)


def test_gradient_of_a_logit_is_what_the_sink_keeps_from_the_output(measured: Measured) -> None:
    """Of the loss L: minus the weight of the sink times dL/do · o, summed over queries."""
    layer, x = small()
    values = layer.v_proj(x).unflatten(2, (3, 4)).transpose(1, 2)
    weights = layer.attention(x)
    heads = weights @ values
    cotangent = torch.randn_like(heads)
    (found,) = torch.autograd.grad(heads, layer.sink, cotangent)
    kept = (1 - weights.sum(dim=-1)) * (cotangent * heads).sum(dim=-1)
    measured.close(found, -kept.sum(dim=(0, 2)))


@pytest.mark.parametrize(("first", "window"), [(2, 3), (1, 1), (0, 4)])
def test_cache_keeps_the_first_and_the_last_tokens(measured: Measured, first: int, window: int) -> None:
    layer, x = small("tokens", first, window, T=12)
    state: SinkCache | None = None
    for token in x.split(1, dim=1):
        _, state = layer.step(token, state)
        wanted = [j for j in range(state.seen) if j < first or j > state.seen - window]
        assert state.position.tolist() == wanted
        measured.value("slots", len(wanted), at_most=first + window - 1)


def test_until_a_token_is_dropped_the_stream_is_full_attention(measured: Measured) -> None:
    layer, x = small("tokens", first=2, window=3, T=12)
    y, full = layer(x), plain(layer)(x, is_causal=True)
    measured.close(y[:, :5], full[:, :5])
    measured.value("afterwards, max |Δ|", (y - full)[:, 5:].abs().max().item(), above=0.1)


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    for mode in MODES:
        layer, x = small(mode, first=1, window=3)
        changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
        measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
        assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_logits_of_64_heads_in_36_layers(measured: Measured) -> None:
    """Of the larger gpt-oss."""
    sizes = [sum(p.numel() for p in SinkAttention(64, 64, mode).parameters()) for mode in MODES]
    measured.count(36 * (sizes[0] - sizes[2]), 2304)
    measured.count(sizes[1] - sizes[2], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 0), "num_heads 0 must be at least 1"),
        ((64, 4, "softmax"), "mode 'softmax' must be one of learned, plus_one, tokens"),
        ((64, 4, "tokens", -1), "first -1 must be at least 0"),
        ((64, 4, "tokens", 4, 0), "window 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SinkAttention(*arguments)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    with pytest.raises(ValueError, match=r"^state values \(2, 4, 9, 16\) of torch.float32 must be"):
        layer.step(x, state._replace(values=state.values[:, :, 1:]))


@pytest.mark.parametrize("other", [(0, None), (3, 4), (0, 7)], ids=str)
def test_a_state_of_another_window_is_refused(other: tuple[int, int | None]) -> None:
    _, (x,) = example()
    _, state = SinkAttention(64, 4, "tokens", first=0, window=2).step(x[:, :9])
    with pytest.raises(ValueError, match=r"^state position"):
        SinkAttention(64, 4, "tokens", *other).step(x[:, 9:], state)


def test_a_large_sink_is_finite_in_float16() -> None:
    layer, (x,) = SinkAttention(64, 1), example()[1]
    torch.nn.init.constant_(layer.sink, 1e4)
    assert layer.half()(x.half()).isfinite().all()
