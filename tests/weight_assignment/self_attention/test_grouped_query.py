"""Proofs of grouped-query attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GPTBigCodeConfig, LlamaConfig
from transformers.models.gpt_bigcode.modeling_gpt_bigcode import GPTBigCodeAttention
from transformers.models.llama.modeling_llama import LlamaAttention

from snippets.weight_assignment.self_attention.grouped_query import (
    GroupedCache,
    GroupedQueryAttention,
    example,
)
from snippets.weight_assignment.self_attention.multi_head import MultiHeadAttention
from tests.measure import Measured

each_number_of_kv_heads = pytest.mark.parametrize("kv_heads", [6, 3, 2, 1])


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Return x W^T."""
    return torch.einsum("...i,oi->...o", x, w)


def read(q: Tensor, keys: list[Tensor], values: list[Tensor], scale: float) -> Tensor:
    """Return the softmax mean of the values of at least one allowed key."""
    e = [torch.exp((q * k).sum() * scale) for k in keys]
    return sum(a * v for a, v in zip(e, values, strict=True)) / sum(e)


def naive(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Return (B, T, E) where query head h reads kv head h // (H / K)."""
    d = w_q.shape[0] // heads
    q, k, v = linear(x, w_q), linear(x, w_k), linear(x, w_v)
    out = []
    for b in range(x.shape[0]):
        rows = []
        for i in range(x.shape[1]):
            parts = []
            for h in range(heads):
                g = h // (heads // kv_heads)
                keys = [k[b, j, g * d : (g + 1) * d] for j in range(i + 1)]
                values = [v[b, j, g * d : (g + 1) * d] for j in range(i + 1)]
                parts.append(read(q[b, i, h * d : (h + 1) * d], keys, values, d**-0.5))
            rows.append(torch.cat(parts))
        out.append(torch.stack(rows))
    return linear(torch.stack(out), w_o)


def naive_pool(w: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Return the K heads of w_k or w_v (H d, E) as means over each group."""
    d, n = w.shape[0] // heads, heads // kv_heads
    part = [w[h * d : (h + 1) * d] for h in range(heads)]
    return torch.cat([sum(part[g * n : (g + 1) * n]) / n for g in range(kv_heads)])


def small(kv_heads: int, heads: int = 6, width: int = 12, T: int = 5) -> tuple[GroupedQueryAttention, Tensor]:
    """A layer with large random weights, and tokens."""
    torch.manual_seed(1)
    layer = GroupedQueryAttention(width, heads, kv_heads).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer, torch.randn(2, T, width, dtype=torch.float64, requires_grad=True)


def llama(layer: GroupedQueryAttention) -> LlamaAttention:
    """The layer of transformers with the same weights."""
    config = LlamaConfig(
        hidden_size=layer.q_proj.in_features,
        num_attention_heads=layer.num_heads,
        num_key_value_heads=layer.kv_heads,
        attn_implementation="sdpa",
    )
    theirs = LlamaAttention(config, layer_idx=0).double().eval()
    theirs.load_state_dict({name.replace("out", "o"): tensor for name, tensor in layer.state_dict().items()})
    return theirs


def unrotated(x: Tensor, layer: GroupedQueryAttention) -> tuple[Tensor, Tensor]:
    """Cosine 1 and sine 0 for each token: no positions."""
    cos = x.new_ones(*x.shape[:2], x.shape[2] // layer.num_heads)
    return cos, torch.zeros_like(cos)


@each_number_of_kv_heads
def test_equals_naive_reference(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads)
    weights = [layer.get_parameter(f"{name}_proj.weight") for name in ("q", "k", "v", "out")]
    expected = naive(x, *weights, heads=6, kv_heads=kv_heads)
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x, *layer.parameters()))


@each_number_of_kv_heads
def test_fused_forward_equals_weights_times_values(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads)
    values = layer.v_proj(x).view(2, 5, kv_heads, 2).repeat_interleave(6 // kv_heads, dim=2)
    explicit = layer.out_proj(torch.einsum("bhts,bshd->bthd", layer.attention(x), values).flatten(2))
    measured.close(layer(x), explicit)
    measured.gradients(layer(x), explicit, of=(x, *layer.parameters()))


@each_number_of_kv_heads
def test_equals_llama(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads)
    theirs = llama(layer)
    y = theirs(x, unrotated(x, layer))[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    layer(x).backward(cotangent)
    for name, parameter in layer.named_parameters():
        measured.close(parameter.grad, theirs.get_parameter(name.replace("out", "o")).grad)


@each_number_of_kv_heads
def test_steps_equal_llama_with_its_cache(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads)
    theirs, cache, state = llama(layer), DynamicCache(), None
    for token in x.split([2, 1, 1, 1], dim=1):
        y, state = layer.step(token, state)
        measured.close(y, theirs(token, unrotated(token, layer), past_key_values=cache)[0])
    measured.close(state.keys, cache.layers[0].keys, tolerance=0)
    measured.close(state.values, cache.layers[0].values, tolerance=0)


def test_one_head_equals_multi_query_attention_of_gpt_bigcode(measured: Measured) -> None:
    layer, x = small(kv_heads=1)
    config = GPTBigCodeConfig(n_embd=12, n_head=6, attn_pdrop=0, resid_pdrop=0, attn_implementation="sdpa")
    theirs = GPTBigCodeAttention(config, layer_idx=0).double().eval()
    stacked = torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight])
    state = {"c_attn.weight": stacked, "c_attn.bias": torch.zeros(len(stacked))}
    theirs.load_state_dict(state | {"c_proj.weight": layer.out_proj.weight, "c_proj.bias": torch.zeros(12)})
    y = theirs(x)[0]
    measured.close(layer(x), y)
    measured.gradients(layer(x), y, of=(x,))


def test_as_many_heads_as_queries_are_multi_head_attention(measured: Measured) -> None:
    layer, x = small(kv_heads=6)
    whole = MultiHeadAttention(12, 6, bias=False).double().eval()
    whole.load_state_dict(layer.state_dict())
    expected = whole(x, is_causal=True)
    measured.close(layer.attention(x), whole.attention(x, is_causal=True))
    measured.close(layer(x), expected)
    measured.gradients(layer(x), expected, of=(x,))


@each_number_of_kv_heads
def test_keys_are_interleaved_not_tiled(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads)
    q, k, v = (
        linear(x).view(2, 5, -1, 2).transpose(1, 2) for linear in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    group = 6 // kv_heads

    def output(keys: Tensor, values: Tensor) -> Tensor:
        heads = F.scaled_dot_product_attention(q, keys, values, is_causal=True)
        return layer.out_proj(heads.transpose(1, 2).flatten(2))

    repeated = output(k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1))
    measured.close(layer(x), repeated)
    tiled = (layer(x) - output(k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1))).abs().max().item()
    if kv_heads in (1, 6):
        measured.value("tiled, max |Δ|", tiled, at_most=1e-10)
    else:
        measured.value("tiled, max |Δ|", tiled, above=0.5)


def test_a_head_of_keys_reaches_its_group_alone(measured: Measured) -> None:
    layer, x = small(kv_heads=3)
    before = layer.attention(x)
    with torch.no_grad():
        layer.k_proj.weight[2:4] += 1  # the second of three
    change = (layer.attention(x) - before).abs().amax(dim=(0, 2, 3))  # (heads)
    measured.close(change[[0, 1, 4, 5]], torch.zeros(4, dtype=torch.float64), tolerance=0)
    measured.value("change in the group", change[2:4].min().item(), above=0.01)


@pytest.mark.parametrize("kv_heads", [3, 2, 1])
def test_pooled_heads_are_means(measured: Measured, kv_heads: int) -> None:
    layer, _ = small(kv_heads=6)
    fewer = layer.pooled(kv_heads)
    for name in ("k_proj.weight", "v_proj.weight"):
        measured.close(fewer.get_parameter(name), naive_pool(layer.get_parameter(name), 6, kv_heads))
    for name in ("q_proj.weight", "out_proj.weight"):
        measured.close(fewer.get_parameter(name), layer.get_parameter(name), tolerance=0)


@pytest.mark.parametrize("kv_heads", [3, 2, 1])
def test_pooling_equal_heads_changes_nothing(measured: Measured, kv_heads: int) -> None:
    fewer, x = small(kv_heads)
    layer = GroupedQueryAttention(12, 6, 6).double().eval()
    state = fewer.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        heads = state[name].unflatten(0, (kv_heads, 2))
        state[name] = heads.repeat_interleave(6 // kv_heads, dim=0).flatten(0, 1)
    layer.load_state_dict(state)
    measured.close(layer(x), fewer(x))
    measured.close(layer.pooled(kv_heads)(x), layer(x))


@pytest.mark.parametrize("kv_heads", [3, 2, 1])
def test_pooling_unlike_heads_is_no_approximation(measured: Measured, kv_heads: int) -> None:
    layer, x = small(kv_heads=6)
    difference = (layer.pooled(kv_heads)(x) - layer(x)).norm() / layer(x).norm()
    measured.value("relative error", difference.item(), above=0.3)


def test_pooling_twice_is_pooling_at_once(measured: Measured) -> None:
    layer, x = small(kv_heads=6)
    measured.close(layer.pooled(3).pooled(1)(x), layer.pooled(1)(x))


def test_later_tokens_do_not_change_earlier_outputs(measured: Measured) -> None:
    layer, x = small(kv_heads=2)
    changed = torch.cat([x[:, :3], torch.randn_like(x[:, 3:])], dim=1)
    measured.close(layer(changed)[:, :3], layer(x)[:, :3], tolerance=0)
    assert not torch.isclose(layer(changed), layer(x))[:, 3:].any()


def test_parameters_of_eight_heads_of_64(measured: Measured) -> None:
    for kv_heads, expected in ((8, 1_048_576), (2, 655_360), (1, 589_824)):
        layer = GroupedQueryAttention(512, 8, kv_heads)
        measured.count(sum(p.numel() for p in layer.parameters()), expected)


def test_bytes_per_token_of_32_layers_of_32_heads_of_128(measured: Measured) -> None:
    """Llama 3 8B has eight heads of keys and values, 128 KiB per token."""
    for kv_heads, kibibytes in ((32, 512), (8, 128), (1, 16)):
        with torch.device("meta"):
            layer = GroupedQueryAttention(4096, 32, kv_heads).bfloat16()
            _, state = layer.step(torch.empty(1, 1, 4096, dtype=torch.bfloat16))
        measured.count(32 * sum(kept.nbytes for kept in state) // 1024, kibibytes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((65, 4, 2), "embed_dim 65 must be divisible by num_heads 4"),
        ((64, 8, 3), "num_heads 8 must be divisible by kv_heads 3"),
        ((0, 4, 2), "embed_dim 0"),
        ((64, 4, 0), "kv_heads 0 must be at least 1"),
    ],
)
def test_refuses_impossible_arguments(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupedQueryAttention(*arguments)


@pytest.mark.parametrize("kv_heads", [0, 3, 16])
def test_refuses_to_pool_into_heads_that_do_not_divide(kv_heads: int) -> None:
    layer, _ = example(kv_heads=8)
    with pytest.raises(ValueError, match=f"kv_heads 8 must be divisible by kv_heads {kv_heads}"):
        layer.pooled(kv_heads)


def test_refuses_caches_whose_halves_do_not_fit() -> None:
    layer, (x,) = example()
    _, state = layer.step(x)
    for keys, values in ((state.keys, state.values[:, :, 1:]), (state.keys[0], state.values[0])):
        with pytest.raises(
            ValueError, match=r"^state \w+ \(.*\) of torch.float32 must be \(B, kv_heads, S, d\)"
        ):
            layer.step(x, GroupedCache(keys, values))


def test_a_pooled_layer_keeps_the_dtype() -> None:
    layer, _ = small(kv_heads=6)
    assert {parameter.dtype for parameter in layer.pooled(2).parameters()} == {torch.float64}
